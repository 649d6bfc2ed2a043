"""Factors in quantised formats, and of ranks that differ."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from entracte.checkpoints.lora import open_lora, open_lora_file
from entracte.errors import LoraError
from entracte.models.formats import Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.quantise import Writable, quantise
from entracte.residency import Factors

from .model import ATTENTION, RANK, added, opened, random, write

NAME = f"diffusion_model.{ATTENTION}.to_q"


def quantised_factors(weight_format: Writable, scale: str) -> tuple[dict[str, Tensor], Tensor]:
    """Factors of a [64, 64] weight, and their product as expanded factors have it."""
    tensors, product = {}, torch.eye(64)
    for key in ("lora_up", "lora_down"):
        factor = random(64, 64, seed=len(key))
        stored = quantise(weight_format, factor)
        expanded = torch.empty_like(factor, dtype=torch.bfloat16)
        weight_format.expand(stored, expanded)
        product = product @ expanded.float()
        for end, tensor in stored.items():
            leaf = scale if end == "_scale" and scale != "scale" else f"weight{end}"
            tensors[f"{NAME}.{key}.{leaf}"] = tensor
    return tensors, product


@pytest.mark.parametrize(
    ("weight_format", "scale"),
    [
        (ScaledFloat8(torch.float8_e4m3fn), "scale"),
        (ScaledFloat8(torch.float8_e5m2), "scale_weight"),
        (Nvfp4(high_first=True, blocked=True), "scale"),
        (Mxfp8(), "scale"),
        (Int8(), "scale"),
    ],
)
def test_quantised_factors_are_expanded(
    tmp_path: Path, weight_format: Writable, scale: str
) -> None:
    """And rounded to bfloat16 once."""
    tensors, product = quantised_factors(weight_format, scale)
    path = write(tmp_path / "lora.safetensors", tensors)
    shapes = {"transformer": {f"{ATTENTION}.to_q.weight": (64, 64)}}
    lora = open_lora(open_lora_file(path), shapes)
    assert not lora.notices
    change = lora.changes["transformer"][f"{ATTENTION}.to_q.weight"]
    assert {tensor.dtype for tensor in change.tensors.values()} == {torch.bfloat16}
    assert torch.equal(added(lora, f"{ATTENTION}.to_q.weight", weight=torch.zeros(64, 64)), product)


def test_quantised_factors_of_a_fused_projection_are_split(tmp_path: Path) -> None:
    form = ScaledFloat8(torch.float8_e4m3fn)
    name = f"diffusion_model.{ATTENTION}.to_qkv"
    tensors = {f"{name}.alpha": torch.tensor(2.0)}
    factors = []
    for key, factor in (("lora_A", random(RANK, 16)), ("lora_B", random(48, RANK))):
        stored = quantise(form, factor)
        factors.append(torch.empty_like(factor, dtype=torch.bfloat16))
        form.expand(stored, factors[-1])
        tensors |= {f"{name}.{key}.weight{end}": tensor for end, tensor in stored.items()}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    down, up = (factor.float() for factor in factors)
    for number, part in enumerate(("to_q", "to_k", "to_v")):
        right = (up[16 * number : 16 * (number + 1)] * 0.5) @ down
        torch.testing.assert_close(added(lora, f"{ATTENTION}.{part}.weight"), right)


def test_a_quantised_factor_without_a_scale(tmp_path: Path) -> None:
    tensors, _ = quantised_factors(ScaledFloat8(torch.float8_e4m3fn), "scale")
    del tensors[f"{NAME}.lora_up.weight_scale"]
    with pytest.raises(LoraError, match=r"lora_up\.weight is float8_e4m3fn without a weight_scale"):
        opened(write(tmp_path / "lora.safetensors", tensors))


def test_memory_follows_the_rank_of_each_module(tmp_path: Path) -> None:
    """As in distilled LoRAs that were made smaller."""
    ranks = {"to_q": 1, "to_k": 3, "to_v": 16}
    tensors = {}
    for name, rank in ranks.items():
        tensors[f"diffusion_model.{ATTENTION}.{name}.lora_A.weight"] = random(rank, 16)
        tensors[f"diffusion_model.{ATTENTION}.{name}.lora_B.weight"] = random(16, rank)
    changes = opened(write(tmp_path / "lora.safetensors", tensors)).changes["transformer"]
    for name, rank in ranks.items():
        change = changes[f"{ATTENTION}.{name}.weight"]
        assert isinstance(change, Factors)
        assert change.flops == 2 * 16 * 16 * rank
        assert sum(tensor.nbytes for tensor in change.tensors.values()) == 4 * 2 * 16 * rank
