"""The quick linear and attention equal torch's."""

import pytest
import torch
import torch.nn.functional as F

from entracte.models.transformer import linear
from entracte.models.transformer.linear import SHORT_ATTENTION, Linear, attention
from entracte.models.transformer.norm import RMSNorm, rms_norm


@pytest.fixture(params=[True, False], ids=["with instructions", "without"])
def _either_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "multiplies_bfloat16", lambda: request.param)


@pytest.mark.usefixtures("_either_cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear(dtype: torch.dtype) -> None:
    """One rounding: each element is the bfloat16 that is nearest to the exact sum, or its
    neighbour where float32 sums differ in order."""
    torch.manual_seed(0)
    layer = Linear(96, 40).to(dtype)
    x = torch.randn(2, 30, 96).to(dtype)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    assert layer(x).dtype is dtype
    assert torch.allclose(layer(x).double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.usefixtures("_either_cpu")
@pytest.mark.parametrize("queries", [SHORT_ATTENTION, SHORT_ATTENTION + 1])
def test_attention(queries: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, queries, 16).bfloat16()
    k, v = torch.randn(1, 2, 64, 16).bfloat16(), torch.randn(1, 2, 64, 16).bfloat16()
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    out = attention(q, k, v)
    assert out.dtype is torch.bfloat16
    assert (out.double() - exact).norm() / exact.norm() < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm_is_torchs_bit_for_bit(dtype: torch.dtype, weighted: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 50, 128).to(dtype)
    before = x.clone()
    norm = RMSNorm(128, 1e-6).to(dtype)
    norm.weight.data.normal_()
    weight = norm.weight.detach() if weighted else None
    expected = F.rms_norm(x, (128,), weight, 1e-6)
    found = norm(x) if weighted else rms_norm(x, 1e-6)
    assert torch.equal(found, expected)
    assert torch.equal(x, before)
