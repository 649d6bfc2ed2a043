"""Copies to several devices' memory: on a GPU, or interpreted."""

import os

import pytest
import torch

from entracte.models.transformer import HeadRoom

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


@pytest.mark.parametrize("programs", [1, 3])
@pytest.mark.parametrize("width", [48, 46])  # of whole vectors, and not
@pytest.mark.parametrize("alike", [False, True])
def test_every_copy_is_where_it_belongs(programs: int, width: int, alike: bool) -> None:
    from entracte.models.kernels.copies import copy_to

    ranks, rows, tokens, first = 3, 2, 300, 5
    x = torch.arange(rows * tokens * ranks * width, device=DEVICE).float()
    x = x.view(rows, tokens, ranks, width).permute(2, 0, 1, 3)  # heads of one device each
    if alike:
        x = x[:1].expand(ranks, -1, -1, -1)
    whole = [x.new_zeros(tokens + 9, rows, 1, width) for _ in range(ranks)]
    parts = [each[first : first + tokens].transpose(0, 1) for each in whole]
    addresses = torch.tensor([part.data_ptr() for part in parts], device=DEVICE)
    copy_to(x, HeadRoom(parts, None, addresses), programs)
    for part, given, each in zip(parts, x, whole, strict=True):
        assert torch.equal(part.squeeze(2), given)
        assert not each[:first].any()
        assert not each[first + tokens :].any()
