import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entracte.residency.merge import Factors, merge
from entracte.residency.weight_sets import Adapter, WeightSets, merged_copy


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
    delta = (one.up @ one.down) + ((two.up * 0.5) @ two.down)
    assert torch.equal(merge(weight, [(one, 1.0), (two, 0.5)]), weight + delta)


def test_the_weight_is_untouched() -> None:
    weight = torch.randn(6, 4).bfloat16()
    before = weight.clone()
    merged = merge(weight, [(factors(0), 1.0)])
    assert torch.equal(weight, before)
    assert not torch.equal(merged, before)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)


@pytest.fixture
def base() -> Two:
    return Two().bfloat16().requires_grad_(False)


def test_untouched_parameters_are_shared(base: Two) -> None:
    twin = merged_copy(base, [({"first": factors(0)}, 1.0)])
    assert twin.second.weight is base.second.weight
    assert twin.first.bias is base.first.bias
    assert twin.first.weight is not base.first.weight


def test_weight_sets_are_keyed_by_strength_and_kept(base: Two) -> None:
    reads = []

    def read(name: str) -> dict[str, Factors]:
        reads.append(name)
        return {"first": factors(len(name))}

    sets = WeightSets(base, read)
    half, whole = (Adapter("a", 0.5),), (Adapter("a", 1.0),)
    assert sets.get(()) is base
    assert sets.get((Adapter("a", 0.0),)) is base
    assert sets.get(half) is sets.get(half)
    assert not torch.equal(sets.get(half).first.weight, sets.get(whole).first.weight)
    assert reads == ["a", "a"]
    sets.get((Adapter("b", 1.0),))
    sets.get((Adapter("c", 1.0),))
    sets.get(half)  # was the oldest, so it was dropped and is merged again
    assert reads == ["a", "a", "b", "c", "a"]
