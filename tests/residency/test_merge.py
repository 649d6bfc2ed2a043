import torch
from hypothesis import given
from hypothesis import strategies as st

from entracte.residency.merge import Factors, merge


def factors(seed: int, out: int = 6, inner: int = 4, rank: int = 2) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(rank, inner, generator=generator).bfloat16(),
        torch.randn(out, rank, generator=generator).bfloat16(),
    )


@given(seed=st.integers(0, 1000), strength=st.sampled_from([-1.0, 0.25, 0.5, 1.0, 1.5]))
def test_rounding_is_the_official_one(seed: int, strength: float) -> None:
    """bf16(W + bf16(bf16(strength * B) @ A)), spelled out in float64."""
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)).bfloat16()
    pair = factors(seed)
    up = (pair.up.double() * strength).bfloat16()
    delta = (up.double() @ pair.down.double()).bfloat16()
    expected = (weight.double() + delta.double()).bfloat16()
    assert torch.equal(merge(weight, [(pair, strength)]), expected)


def test_further_adapters_are_summed_first() -> None:
    weight = torch.randn(6, 4).bfloat16()
    one, two = factors(1), factors(2)
    delta = torch.addmm(one.up @ one.down, two.up, two.down, alpha=0.5)
    assert torch.equal(merge(weight, [(one, 1.0), (two, 0.5)]), weight + delta)


def test_the_weight_is_untouched() -> None:
    weight = torch.randn(6, 4).bfloat16()
    before = weight.clone()
    merged = merge(weight, [(factors(0), 1.0)])
    assert torch.equal(weight, before)
    assert not torch.equal(merged, before)


def test_into_the_weight_itself() -> None:
    weight = torch.randn(6, 4).bfloat16()
    pairs = [(factors(0), 1.0), (factors(1), 0.5)]
    expected = merge(weight, pairs)
    merge(weight, pairs, out=weight)
    assert torch.equal(weight, expected)


def test_nothing_to_merge() -> None:
    weight = torch.randn(6, 4).bfloat16()
    assert torch.equal(merge(weight, []), weight)
