"""Damaged configs, indices and tokenizers of a model."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from entracte.checkpoints.gemma_choice import check_text_encoder
from entracte.checkpoints.gemma_folder import open_gemma
from entracte.checkpoints.loading import build_component, prepare_module
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.shards import read_index
from entracte.errors import CheckpointError
from entracte.models.gemma import Tokenizer
from entracte.models.registry import LTX_2_3
from entracte.synthetic.demo import CHECKPOINT, GEMMA

from .mutate import fuzz

TOKENS = (
    b"1000000000", b"-1", b"0.5", b"true", b'"x"', b"[1,2]", b'"num_layers":', b'"hidden_size":',
    b'"../x.safetensors"', b'"/etc/passwd"', b"1e308",
)  # fmt: skip


@pytest.mark.slow
def test_config_of_a_checkpoint(demo_model: Path) -> None:
    """Every component is built by what is read, where it can be."""
    file = SafetensorsFile(demo_model / CHECKPOINT)

    other = SafetensorsFile(demo_model / CHECKPOINT)

    def read(data: bytes) -> None:
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            return  # refused with the header
        if isinstance(given, dict):
            other.config = given
            for component in open_checkpoint([other])[1].values():
                prepare_module(build_component(component, LTX_2_3), torch.device("cpu"))

    assert fuzz(read, [json.dumps(file.config).encode()], (CheckpointError,), TOKENS) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_text_encoder(demo_model: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "gemma"
    shutil.copytree(demo_model / GEMMA, root)
    _, components = open_checkpoint([SafetensorsFile(demo_model / CHECKPOINT)])

    def read(data: bytes) -> None:
        (root / name).write_bytes(data)
        source = open_gemma(root)
        check_text_encoder(source, components["connectors"])
        build_component(source, LTX_2_3)
        if name != "config.json":
            Tokenizer(root, source.config["text_config"]["vocab_size"]).encode("A quiet street")

    assert fuzz(read, [(root / name).read_bytes()], (CheckpointError,), TOKENS) >= 50


@pytest.mark.slow
def test_index(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for each in read_index(path):
            assert each.parent == tmp_path, each

    seed = json.dumps({"metadata": {}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
    assert fuzz(read, [seed.encode()], (CheckpointError,), TOKENS) >= 50
