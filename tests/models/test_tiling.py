from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from entracte.models.tiling import Tiling, decode_tiled, tile_spans


def fake_decode(latent: Tensor) -> Tensor:
    """Each latent becomes its 32 x 32 pixels; the first frame one, every other one eight."""
    pixels = latent[:, :3].repeat_interleave(32, 3).repeat_interleave(32, 4)
    return torch.cat([pixels[:, :, :1], pixels[:, :, 1:].repeat_interleave(8, 2)], dim=2)


@given(length=st.integers(1, 200), tile=st.integers(4, 40), overlap=st.integers(0, 3))
def test_tiles_cover_and_overlap(length: int, tile: int, overlap: int) -> None:
    spans = tile_spans(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 < stop - start <= tile for start, stop in spans)
    for (_, stop), (start, _) in pairwise(spans):
        assert stop - start == overlap


@pytest.mark.slow
@given(
    frames=st.integers(1, 24),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    seed=st.integers(0, 100),
)
def test_tiles_of_a_local_decoder_blend_to_the_whole(
    frames: int, height: int, width: int, seed: int
) -> None:
    """A decoder that looks at no neighbour gives the same video in tiles as at once."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, 4, frames, height, width, generator=generator)
    # Equal along time, as a tile's first frame stands for one pixel frame and not for eight.
    latent = latent[:, :, :1].expand(-1, -1, frames, -1, -1)
    tiling = Tiling(pixels=128, pixel_overlap=32, frames=40, frame_overlap=16)
    chunks = list(decode_tiled(fake_decode, latent, tiling))
    assert torch.allclose(torch.cat(chunks, dim=2), fake_decode(latent), atol=1e-5)


def test_chunks_come_before_the_last_tile_is_decoded() -> None:
    decoded = []

    def decode(latent: Tensor) -> Tensor:
        decoded.append(latent.shape[2])
        return fake_decode(latent)

    chunks = decode_tiled(decode, torch.randn(1, 4, 24, 2, 2), Tiling(frames=80, frame_overlap=24))
    first = next(chunks)
    assert len(decoded) == 1
    assert first.shape[2] == 7 * 8
    assert sum(chunk.shape[2] for chunk in chunks) + first.shape[2] == 8 * 23 + 1
