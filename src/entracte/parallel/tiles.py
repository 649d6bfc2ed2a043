"""Decoding a video's tiles on several devices, one tile at a time on each."""

from collections.abc import Iterator
from math import prod

from torch import Tensor

from entracte.models.tiling import Decode, Tiling, blend, cut
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE

from .ranks import Ranks


class SpreadTiles:
    """The tiles of a latent [1, channels, frames, h, w], decoded in turns by all ranks.

    Each is decoded, and all are blended, as on one device, so the video does not depend on the
    number of ranks.
    """

    def __init__(self, ranks: Ranks, latent: Tensor, tiling: Tiling, decode: Decode) -> None:
        self._ranks = ranks
        self._latent = latent
        self._tiling = tiling
        self._tiles = cut(latent, tiling)
        self._decode = decode
        self._first: Tensor | None = None

    def start(self) -> None:
        """Decode this rank's first tile. A GPU goes on while the host does something else."""
        self._first = self._decoded(0)

    def blended(self) -> Iterator[Tensor]:
        """What `decode_tiled` yields, on the first rank; on the others nothing, at the end.

        All ranks have to go through it: they exchange.
        """
        if self._ranks.rank == 0:
            yield from blend(self._gathered(), self._latent, self._tiling)
        else:
            for _ in self._gathered():
                pass

    def _gathered(self) -> Iterator[Tensor]:
        """The pixels of all tiles, in order, on the first rank."""
        for first in range(0, len(self._tiles), self._ranks.size):
            mine = self._decoded(first) if self._first is None else self._first
            self._first = None
            yield from self._to_first_rank(mine, first)

    def _decoded(self, first: int) -> Tensor | None:
        number = first + self._ranks.rank
        return self._decode(self._tiles[number]) if number < len(self._tiles) else None

    def _to_first_rank(self, mine: Tensor | None, first: int) -> list[Tensor]:
        size, leads = self._ranks.size, self._ranks.rank == 0
        sent = self._latent.new_empty(0) if mine is None or leads else mine.reshape(-1)
        others = self._tiles[first + 1 : first + size] if leads else []
        shapes = [_pixels(tile) for tile in others]
        sizes = [*map(prod, shapes), *[0] * (size - 1 - len(shapes))]
        received = sent.new_empty(sum(sizes))
        giving = [len(sent), *[0] * (size - 1)]
        self._ranks.to_all(sent, received, giving, [0, *sizes]).wait()
        if mine is None or not leads:
            return []
        parts = received.split(sizes)
        return [mine, *(part.view(shape) for part, shape in zip(parts, shapes, strict=False))]


def _pixels(tile: Tensor) -> tuple[int, ...]:
    """The shape of a tile's pixels."""
    _, _, frames, height, width = tile.shape
    return 1, 3, (frames - 1) * TEMPORAL_SCALE + 1, height * SPATIAL_SCALE, width * SPATIAL_SCALE
