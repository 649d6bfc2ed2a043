"""Merges of every kind equal those of peft, in float32."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

from entracte.residency import Change, Dora, Factors, Full, Hadamard, Kronecker
from entracte.residency.merge import merge

RANK = 4


class Model(nn.Module):
    """One linear, [24, 16], that is adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 24)


def low_rank(layer: Any, scale: float) -> Factors:
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    return Factors(down.weight, up.weight, scale)


def lora(layer: Any) -> Change:
    return low_rank(layer, 6 / RANK)


def rank_stabilised(layer: Any) -> Change:
    return low_rank(layer, 6 / RANK**0.5)


def dora(layer: Any) -> Change:
    return Dora(low_rank(layer, 6 / RANK), layer.lora_magnitude_vector["default"].weight)


def loha(layer: Any) -> Change:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    a1, b1, a2, b2 = (getattr(layer, name)["default"] for name in names)
    return Hadamard(a1, b1, a2, b2, 6 / RANK)


def lokr(layer: Any) -> Change:
    return Kronecker(matrix(layer, "lokr_w1"), matrix(layer, "lokr_w2"), 6 / RANK)


def matrix(layer: Any, name: str) -> tuple[Tensor, ...]:
    """One of a LoKr's two: whole, or in factors."""
    whole = getattr(layer, name)
    if "default" in whole:
        return (whole["default"],)
    return getattr(layer, f"{name}_a")["default"], getattr(layer, f"{name}_b")["default"]


ALL = {"target_modules": ["linear"]}
LORA = {"r": RANK, "lora_alpha": 6, **ALL}
LYCORIS = {"r": RANK, "alpha": 6, **ALL}
CASES: dict[str, tuple[PeftConfig, Callable[[Any], Change]]] = {
    "LoRA": (LoraConfig(**LORA), lora),
    "rsLoRA": (LoraConfig(**LORA, use_rslora=True), rank_stabilised),
    "DoRA": (LoraConfig(**LORA, use_dora=True), dora),
    "LoHa": (LoHaConfig(**LYCORIS), loha),
    "LoKr, one in factors": (LoKrConfig(**LYCORIS, decompose_factor=4), lokr),
    "LoKr, both in factors": (LoKrConfig(**(LYCORIS | {"r": 1}), decompose_both=True), lokr),
    "LoKr, both whole": (LoKrConfig(**(LYCORIS | {"r": 64})), lokr),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_merges_are_those_of_peft(case: str) -> None:
    config, read = CASES[case]
    torch.manual_seed(0)
    model = Model().requires_grad_(False)
    before = model.linear.weight.clone()
    layer = get_peft_model(model, config).base_model.model.linear
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.5
    change = read(layer)
    if isinstance(change, Kronecker):  # 64 and 1 are the ranks of two cases
        change = Kronecker(change.first, change.second, 6 / config.r)
    layer.merge()
    theirs = layer.get_base_layer().weight
    assert not torch.allclose(theirs, before, atol=0.1)
    assert torch.allclose(merge(before, [(change, 1.0)]), theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_bias_of_the_second_factor_is_a_full_difference() -> None:
    torch.manual_seed(0)
    model = Model().requires_grad_(False)
    before = model.linear.bias.clone()
    layer = get_peft_model(model, LoraConfig(**LORA, lora_bias=True)).base_model.model.linear
    bias = layer.lora_B["default"].bias
    bias.data = torch.randn_like(bias)
    layer.merge()
    theirs = layer.get_base_layer().bias
    assert torch.allclose(merge(before, [(Full(bias, 6 / RANK), 1.0)]), theirs, atol=1e-6)


def test_a_row_of_zeros_has_no_direction() -> None:
    weight = torch.eye(3)
    weight[1] = 0
    change = Dora(Factors(torch.zeros(1, 3), torch.zeros(3, 1)), torch.full((3,), 2.0))
    assert torch.equal(merge(weight, [(change, 1.0)]), 2 * weight)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_dora_is_interpolated_between_the_base_and_itself(strength: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 16)
    change = Dora(Factors(torch.randn(2, 16), torch.randn(24, 2)), torch.rand(24) + 0.5)
    whole = merge(weight, [(change, 1.0)])
    right = torch.lerp(weight, whole, strength)
    assert torch.allclose(merge(weight, [(change, strength)]), right, atol=1e-5)
