"""A picture decoded on several ranks is that of one, bit for bit."""

import pytest
import torch
from torch import Tensor

from entracte.models.tiling import Tiling, decode_tiled
from entracte.parallel import Mesh, SpreadTiles

from .threads import on_ranks

TILING = Tiling(pixels=96, pixel_overlap=32, frames=32, frame_overlap=8)


def fake_decode(latent: Tensor) -> Tensor:
    """Each latent becomes its 32 x 32 pixels, each of them another number; frames likewise."""
    pixels = latent[:, :3].repeat_interleave(32, 3).repeat_interleave(32, 4)
    pixels = torch.cat([pixels[:, :, :1], pixels[:, :, 1:].repeat_interleave(8, 2)], dim=2)
    # Unlike its neighbours' where they overlap.
    return pixels * torch.linspace(1, 2, pixels.shape[-1]) + pixels.shape[3]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("shape", [(9, 4, 5), (4, 2, 3), (9, 3, 3)])
def test_the_picture_does_not_depend_on_the_number_of_ranks(
    ranks: int, started: bool, shape: tuple[int, int, int]
) -> None:
    latent = torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(0))
    expected = list(decode_tiled(fake_decode, latent, TILING))
    decoded: list[list[Tensor]] = [[] for _ in range(ranks)]

    def work(mesh: Mesh) -> list[Tensor]:
        def decode(tile: Tensor) -> Tensor:
            decoded[mesh.everyone.rank].append(tile)
            return fake_decode(tile)

        tiles = SpreadTiles(mesh.everyone, latent, TILING, decode)
        if started:
            tiles.start()
        return list(tiles.blended())

    first, *others = on_ranks(ranks, work)
    assert len(first) == len(expected)
    assert all(map(torch.equal, first, expected))
    assert not any(others)
    counts = list(map(len, decoded))
    assert max(counts) - min(counts) <= 1
