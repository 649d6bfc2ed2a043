"""Decoding a video tile by tile: its arithmetic and its memory, from the law of one tile."""

from dataclasses import dataclass
from itertools import pairwise

from entracte.models.tiling import Tiling, tile_spans
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE

from .stage_laws import Cost

FLOAT32 = 4
COLOURS = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a latent grid is cut: the sizes of all tiles along each axis, and the grid's own sides.

    final: of every tile along time, how many pixel frames no later tile changes.
    """

    frames: tuple[int, ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    final: tuple[int, ...]
    height: int
    width: int

    @classmethod
    def of(cls, frames: int, height: int, width: int, tiling: Tiling) -> "Tiles":
        """The tiles as `decode_tiled` makes them."""
        size, shared = tiling.pixels // SPATIAL_SCALE, tiling.pixel_overlap // SPATIAL_SCALE
        times = tile_spans(
            frames, tiling.frames // TEMPORAL_SCALE, tiling.frame_overlap // TEMPORAL_SCALE
        )
        final = [
            (next_start - start) * TEMPORAL_SCALE for (start, _), (next_start, _) in pairwise(times)
        ]
        lengths = _lengths(times)
        return cls(
            lengths,
            _lengths(tile_spans(height, size, shared)),
            _lengths(tile_spans(width, size, shared)),
            (*final, pixel_frames(lengths[-1])),
            height,
            width,
        )

    @property
    def count(self) -> int:
        return len(self.frames) * len(self.heights) * len(self.widths)

    @property
    def single(self) -> bool:
        """Whether a tile covers the whole picture."""
        return len(self.heights) == len(self.widths) == 1


def pixel_frames(frames: int) -> int:
    """How many frames so many latent ones are decoded to."""
    return (frames - 1) * TEMPORAL_SCALE + 1


@dataclass(frozen=True, slots=True)
class TileWork:
    """What a tile along time takes, with all tiles of the picture.

    flops: overlaps counted as often as they are decoded. nbytes: the most in use at once, beside
    the latents. left: of these, what is still held when its frames are made.
    """

    flops: float
    nbytes: int
    left: int


def decode_work(cost: Cost, tiles: Tiles, itemsize: int) -> list[TileWork]:
    """Of every tile along time, in order. A tile is decoded while the frames before wait."""
    found = []
    places = sum(tiles.heights) * sum(tiles.widths)
    frame = COLOURS * tiles.height * tiles.width * SPATIAL_SCALE**2
    tail = levels = 0  # what is still held of the tile before along time
    for frames, final in zip(tiles.frames, tiles.final, strict=True):
        pixels = frame * pixel_frames(frames) * itemsize
        most = tail + levels + _decode_frames(cost, tiles, frames, itemsize)
        if tail:
            # Blending with the tail of the tile before: both and their mean, in float32.
            shared = frame * _shared(tiles) * 3 * FLOAT32
            most = max(most, tail + levels + pixels + shared)
        # To levels of 0 to 255 in float32, and these to bytes.
        most = max(most, tail + levels + pixels + frame * final * (FLOAT32 + 1))
        # The levels wait for the next ones, and the pixels stay because of their tail.
        tail, levels = pixels, frame * final
        found.append(TileWork(places * cost.flops_of(frames), round(most), tail + levels))
    return found


def _decode_frames(cost: Cost, tiles: Tiles, frames: int, itemsize: int) -> float:
    """One tile along time, with all tiles of the picture."""
    size = max(tiles.heights) * max(tiles.widths)
    decoding = cost.nbytes_of(frames) * size
    if tiles.single:
        return decoding
    count = pixel_frames(frames)
    whole = COLOURS * count * tiles.height * tiles.width * SPATIAL_SCALE**2

    def held(size: int) -> int:
        """A tile of so many places, and every pixel's share of it, in float32."""
        return size * SPATIAL_SCALE**2 * (COLOURS * count * itemsize + FLOAT32)

    tile = COLOURS * count * size * SPATIAL_SCALE**2
    return whole * FLOAT32 + max(
        # The sum of all tiles in float32, and the tile before, while the next one is decoded.
        held(size) + decoding,
        # The tile times its shares.
        held(size) + tile * FLOAT32,
        # After the last one, the sum in the model's dtype.
        held(tiles.heights[-1] * tiles.widths[-1])
        + (whole * itemsize if itemsize != FLOAT32 else 0),
    )


def _shared(tiles: Tiles) -> int:
    """How many pixel frames a tile along time has in common with the one before."""
    return pixel_frames(tiles.frames[0]) - tiles.final[0]


def _lengths(spans: list[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in spans)
