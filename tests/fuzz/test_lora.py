"""Damaged LoRA files and configurations: read, or refused as LoRAs are."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from entracte.checkpoints.lora import open_lora, open_lora_file
from entracte.errors import LoraError
from tests.checkpoints.lora.model import ATTENTION, SHAPES, pair, random

from .mutate import fuzz

NAME = f"diffusion_model.{ATTENTION}"
METADATA = {
    "lora_adapter_metadata": json.dumps(
        {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.alpha_pattern": {"to_q": 1}}
    ),
    "reference_downscale_factor": "2",
}
SEEDS = (
    save(
        pair(f"{NAME}.to_q")
        | {f"{NAME}.to_q.alpha": torch.tensor(2.0), f"{NAME}.to_q.dora_scale": random(16, 1)},
        METADATA,
    ),
    save(
        {f"{NAME}.to_k.lokr_w1": random(4, 4), f"{NAME}.to_k.lokr_w2": random(4, 4)}
        | {f"{NAME}.to_v.diff": random(16, 16), f"{NAME}.to_v.diff_b": random(16)}
    ),
    save(
        {f"{NAME}.to_qkv.lora_down.weight": random(4, 16)}
        | {f"{NAME}.to_qkv.lora_up.weight": random(48, 4)}
    ),
)
CONFIG = json.dumps(
    {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "use_rslora": False, "rank_pattern": {},
     "alpha_pattern": {r"^.*\.to_q": 2}, "init_lora_weights": True}
).encode()  # fmt: skip
TOKENS = (
    b"lora_A", b"lora_B", b".weight", b".alpha", b"hada_w1_a", b"lokr_w1", b"dora_scale", b"diff",
    b"to_qkv", b"F8_E4M3", b"I64", b"BOOL", b"[0,0]", b"[]", b"transformer.", b"(a+)+", b"e308",
)  # fmt: skip


def read(path: Path) -> None:
    """All of a LoRA: header, configuration, alphas and factors."""
    for partial in (False, True):
        try:
            lora = open_lora(open_lora_file(path), SHAPES, partial)
        except LoraError as error:
            if not error.partly:
                raise
            continue
        for component, changes in lora.changes.items():
            for parameter, change in changes.items():
                assert change.shape == SHAPES[component][parameter]
                for part, sized in change.tensors.items():
                    out = torch.empty(sized.shape, dtype=sized.dtype)
                    lora.read(component, parameter, part, out)
                    assert torch.isfinite(out).all()


@pytest.mark.slow
def test_files(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"

    def read_bytes(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    assert fuzz(read_bytes, SEEDS, (LoraError,), TOKENS) >= 50


@pytest.mark.slow
def test_configurations(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(save(pair(f"{NAME}.to_q")))

    def read_bytes(data: bytes) -> None:
        (tmp_path / "adapter_config.json").write_bytes(data)
        read(tmp_path)

    assert fuzz(read_bytes, (CONFIG,), (LoraError,), TOKENS) >= 50
