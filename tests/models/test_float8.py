"""Float8 with a scale for every row: the rule, the kernels' bits, and products."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.models.float8 import (
    FLOAT8,
    Float8Rows,
    Float8Weights,
    product,
    quantise_by,
    quantise_rows,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
# The interpreter cuts bfloat16 numbers instead of rounding them.
HALF = torch.float16 if INTERPRETED else torch.bfloat16
SIZES = st.tuples(st.integers(1, 5), st.sampled_from((16, 48, 96, 4096, 5000)))


def rows(seed: int, count: int, width: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Of very different sizes; the first is of zeros."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-4, 3, count)[:, None]
    x = torch.randn(count, width, generator=generator) * sizes
    x[0] = 0
    return x.to(dtype)


def widened(x: Float8Rows) -> Tensor:
    return x.numbers.float() * x.scales


def same(one: Float8Rows, other: Float8Rows) -> bool:
    bits = torch.equal(one.numbers.view(torch.uint8), other.numbers.view(torch.uint8))
    return bits and torch.equal(one.scales, other.scales)


def alike(one: Float8Rows, other: Float8Rows) -> bool:
    """The same; interpreted, in their scales alone: the interpreter rounds to float8 otherwise."""
    if not INTERPRETED:
        return same(one, other)
    return torch.equal(one.scales, other.scales)


def test_scales_are_powers_of_two_that_the_largest_number_needs() -> None:
    x = rows(1, 40, 64)
    scales = quantise_rows(x).scales
    assert torch.equal(scales, torch.exp2(torch.log2(scales).round()))
    largest = x[1:].float().abs().amax(-1, keepdim=True) / scales[1:]
    assert (largest <= 448).all()
    assert (largest > 220).all()


def test_a_number_keeps_three_bits() -> None:
    x = rows(2, 40, 64)
    error = (widened(quantise_rows(x)) - x.float()).abs()
    smallest = quantise_rows(x).scales * 2.0**-10
    assert (error <= torch.maximum(x.float().abs() / 16, smallest)).all()


def test_what_was_quantised_once_stays_as_it_is() -> None:
    once = quantise_rows(rows(3, 40, 64))
    assert torch.equal(widened(quantise_rows(widened(once).bfloat16())), widened(once))


def test_a_known_scale_cuts_off_what_is_beyond() -> None:
    x = torch.tensor([[1.0, -3.0, 1000.0, -1e9]]).bfloat16()
    found = quantise_by(x, torch.tensor(0.5))
    assert widened(found).tolist() == [[1.0, -3.0, 224.0, -224.0]]


@pytest.mark.parametrize("shape", [(), (1,), (24,), (24, 1)])
def test_weights_have_the_scales_that_they_are_given_room_for(shape: tuple[int, ...]) -> None:
    weight = rows(4, 24, 64)
    out = {"": torch.empty(24, 64, dtype=FLOAT8), "_scale": torch.empty(shape)}
    Float8Weights().quantise(weight, out)
    scales = out["_scale"].view(-1, 1)
    assert torch.equal(scales, torch.exp2(torch.log2(scales).round()))
    made = Float8Rows(out[""], scales.expand(24, 1) if len(scales) == 1 else scales)
    if len(scales) > 1:
        assert same(made, quantise_rows(weight))
    largest = weight.float().abs().amax()
    assert (widened(made) - weight.float()).abs().amax() <= largest / 16


@pytest.mark.parametrize("by_row", [False, True])
def test_a_product_is_that_of_the_widened_numbers(by_row: bool) -> None:
    x, weight = quantise_rows(rows(5, 7, 64)), quantise_rows(rows(6, 32, 64))
    scale = weight.scales.view(-1) if by_row else torch.tensor(0.25)
    bias = torch.randn(32).bfloat16()
    made = product(x, weight.numbers, scale, bias)
    wide = weight.numbers.double() * scale.view(-1, 1)
    expected = widened(x).double() @ wide.t() + bias.double()
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.double(), expected, rtol=2**-7, atol=1e-4)


@pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device")
class TestKernels:
    """On a GPU, or interpreted, the kernels write the bits of torch's operators."""

    @given(SIZES, st.integers(0, 99))
    @settings(deadline=None, max_examples=8)
    def test_rows(self, size: tuple[int, int], seed: int) -> None:
        kernels = pytest.importorskip("entracte.models.float8_triton")
        x = rows(seed, *size, HALF)
        expected = quantise_rows(x)
        made = Float8Rows(
            torch.empty_like(expected.numbers, device=DEVICE),
            torch.empty_like(expected.scales, device=DEVICE),
        )
        kernels.quantise_rows(x.to(DEVICE), made.numbers, made.scales)
        assert alike(Float8Rows(made.numbers.cpu(), made.scales.cpu()), expected)

    @given(SIZES, st.integers(0, 99))
    @settings(deadline=None, max_examples=8)
    def test_a_known_scale(self, size: tuple[int, int], seed: int) -> None:
        kernels = pytest.importorskip("entracte.models.float8_triton")
        x, scale = rows(seed, *size, HALF), torch.tensor(0.0123)
        made = torch.empty(x.shape, dtype=FLOAT8, device=DEVICE)
        kernels.quantise_by(x.to(DEVICE), scale.to(DEVICE), made)
        assert alike(Float8Rows(made.cpu(), scale), quantise_by(x, scale))
