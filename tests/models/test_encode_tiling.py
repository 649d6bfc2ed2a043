"""Encoding in tiles: each token from the tile that knows its surroundings, blended at the seams."""

import torch
from torch import Tensor

from entracte.models.tiling import Tiling, encode_tiled, encoded_tiles

SMALL = Tiling(pixels=128, pixel_overlap=64, frames=64, frame_overlap=24)


def means(pixels: Tensor) -> Tensor:
    """A stand-in for the encoder: the mean of the pixels of each latent place, the first of one
    frame and the others of eight.
    """
    first, later = pixels[:, :, :1], pixels[:, :, 1:]
    pieces = [each.unflatten(2, (-1, n)).mean(3) for each, n in ((first, 1), (later, 8))]
    frames = torch.cat([each for each in pieces if each.shape[2]], dim=2)
    places: Tensor = frames.unflatten(4, (-1, 32)).unflatten(3, (-1, 32)).mean((4, 6))
    return places


def test_tiles_give_what_the_whole_gives() -> None:
    pixels = torch.rand(1, 3, 97, 256, 224)
    tiles = encoded_tiles(13, 8, 7, SMALL)
    assert (len(tiles), max(tiles)) == (2 * 3 * 3, (8, 16))
    tiled = encode_tiled(means, pixels, SMALL)
    assert torch.allclose(tiled, means(pixels), atol=1e-6)


def test_what_one_frame_became_is_not_taken() -> None:
    """Where a tile begins later, its first latent is of a single frame."""

    def marked(tile: Tensor) -> Tensor:
        found = means(tile)
        found[:, :, 0] = 1000.0
        return found

    tiled = encode_tiled(marked, torch.zeros(1, 3, 97, 64, 64), SMALL)
    assert (tiled[:, :, 0] == 1000).all()
    assert (tiled[:, :, 1:] == 0).all()


def test_what_fits_a_tile_is_encoded_at_once() -> None:
    calls = []

    def counted(tile: Tensor) -> Tensor:
        calls.append(tile.shape)
        return means(tile)

    encode_tiled(counted, torch.zeros(1, 3, 33, 128, 128), SMALL)
    assert calls == [(1, 3, 33, 128, 128)]
