"""Damaged safetensors files: headers, and what is read by them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.errors import CheckpointError

from .mutate import fuzz

TOKENS = (
    b'"F32"', b'"BF16"', b'"F4"', b'"U8"', b'"shape":[', b'"data_offsets":[', b'"dtype":',
    b'"__metadata__":{', b'"config":"{}"', b"\\ud800", b".weight_scale", b"GGUF", b"<html",
)  # fmt: skip


@pytest.mark.slow
def test_safetensors(tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    metadata = {"config": json.dumps({"transformer": {"num_layers": 1}}), "model_version": "2.3"}
    seeds = [
        save({f"{prefix}a": torch.ones(2, 3), f"{prefix}b": torch.zeros(0)}, metadata),
        save({f"{prefix}x.weight": torch.ones(4).bfloat16()}),
    ]
    path = tmp_path / "fuzzed.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        file = SafetensorsFile(path)
        for name in file.tensors:
            Located(file, name).tensor()
        if file.config:
            open_checkpoint([file])

    assert fuzz(read, seeds, (CheckpointError,), TOKENS) >= 50
