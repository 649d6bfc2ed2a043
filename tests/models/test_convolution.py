"""The quick convolutions equal torch's, and take their places in a library's model."""

import pytest
import torch
from torch import nn

from entracte.models.convolution import Conv2d, Conv3d, use_quick_convolutions
from entracte.models.transformer import linear


@pytest.fixture(params=[True, False], ids=["with instructions", "without"])
def _either_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "multiplies_bfloat16", lambda: request.param)


SHAPES = {
    "2d": (nn.Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 8, 9, 7)),
    "grouped": (
        nn.Conv2d,
        {"kernel_size": (1, 3), "groups": 4, "dilation": 2, "bias": False},
        (1, 8, 5, 9),
    ),
    "3d": (nn.Conv3d, {"kernel_size": (3, 3, 3), "padding": (0, 1, 1)}, (1, 8, 4, 6, 5)),
    "reflected": (
        nn.Conv3d,
        {"kernel_size": 3, "padding": (0, 1, 1), "padding_mode": "reflect"},
        (1, 8, 4, 6, 5),
    ),
}


@pytest.mark.usefixtures("_either_cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_equal(name: str, dtype: torch.dtype) -> None:
    kind, sizes, shape = SHAPES[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(kind(8, 12, **sizes))).to(dtype)
    x = torch.randn(shape).to(dtype)
    with torch.no_grad():
        exact = model.double()(x.double())
        model.to(dtype)
        parameters = dict(model.named_parameters())
        use_quick_convolutions(model)
        assert type(model[0][0]) in (Conv2d, Conv3d)
        assert all(parameters[name] is held for name, held in model.named_parameters())
        out = model(x)
    assert out.dtype is dtype
    assert torch.allclose(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)
