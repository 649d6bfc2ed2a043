"""Headers, configs and files that are wrong on purpose: always a CheckpointError, and soon."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from entracte.checkpoints.loading import build_component
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.errors import CheckpointError
from entracte.models.registry import LTX_2_3
from entracte.synthetic.demo import CHECKPOINT

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(tmp_path: Path, header: object, data: int = 8) -> Path:
    """A file with a header, as bytes or as what JSON makes of it, and zeros."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"\xff\xfe{}", "its header cannot be read"),
        (b"", "it is full of zeros, as an interrupted download"),
        ([], "it is not an object"),
        (b'{"a": 1, "a": 2}', "a key is there twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": {"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', "digits"),
        ({"__metadata__": []}, None),
        ({"__metadata__": 5}, "valid dictionary"),
        ({"__metadata__": {"config": 5}}, "valid string"),
        ({"__metadata__": {"config": "{"}, "a": GOOD}, "its config is not JSON"),
        ({"__metadata__": {"config": "[" * 100_000}, "a": GOOD}, "its config is not JSON"),
        ({"__metadata__": {"config": "5"}, "a": GOOD}, "it is not an object"),
        ({"a": 5}, "a: Input should be"),
        ({"a": {}}, "a.dtype: Field required"),
        ({"a": GOOD | {"dtype": 5}}, "a.dtype"),
        ({"a": GOOD | {"dtype": "F5"}}, "a has the dtype F5"),
        ({"a": GOOD | {"dtype": "F4", "shape": [16]}}, r"4-bit floats \(F4\)"),
        ({"a": GOOD | {"shape": ["2"]}}, "a.shape.0"),
        ({"a": GOOD | {"shape": [2.0]}}, "a.shape.0"),
        ({"a": GOOD | {"shape": [True]}}, "a.shape.0"),
        ({"a": GOOD | {"shape": [-2]}}, "a.shape.0"),
        ({"a": GOOD | {"shape": [2**62, 2**62]}}, "is damaged"),
        ({"a": GOOD | {"shape": [2**64]}}, "a.shape.0"),
        ({"a": GOOD | {"shape": 2}}, "a.shape"),
        ({"a": GOOD | {"data_offsets": [-8, 0]}}, "a.data_offsets.0"),
        ({"a": GOOD | {"data_offsets": [0]}}, "a.data_offsets"),
        ({"a": GOOD | {"data_offsets": [0, 8, 8]}}, "a.data_offsets"),
        ({"a": GOOD | {"data_offsets": [8, 0]}}, "is damaged"),
        ({"a": GOOD | {"data_offsets": [8, 16]}}, "should begin at 0"),
        ({"a": GOOD, "b": GOOD}, "b is at bytes 0 to 8, and should begin at 8"),
        ({"a": GOOD, "b": GOOD | {"data_offsets": [4, 12]}}, "should begin at 8"),
        ({"a": GOOD, "b": GOOD | {"data_offsets": [12, 20]}}, "should begin at 8"),
        ({"a": GOOD | {"data_offsets": [0, 2**40]}}, "is truncated"),
        ({"a": GOOD | {"shape": [1], "data_offsets": [0, 4]}}, "has .* bytes and should have"),
    ],
)
def test_headers(tmp_path: Path, header: object, words: str | None) -> None:
    path = written(tmp_path, header)
    with pytest.raises(CheckpointError, match=words) as raised:
        SafetensorsFile(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_header_as_large_as_it_says(tmp_path: Path) -> None:
    """Memory is taken for what is there, not for what a length claims."""
    path = tmp_path / "x"
    path.write_bytes((90 * 2**20).to_bytes(8, "little"))
    with pytest.raises(CheckpointError, match="its header would end at byte 94,371,848 of 8"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [None, {}, {"a": "b"}])
def test_metadata_that_the_library_takes(tmp_path: Path, content: object) -> None:
    file = SafetensorsFile(written(tmp_path, {"__metadata__": content, "a": GOOD}))
    assert torch.equal(Located(file, "a").tensor(), torch.zeros(2))


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device", "socket"])
def test_what_is_not_a_file_never_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            import socket

            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        SafetensorsFile(path)
    with pytest.raises(CheckpointError, match="holds no LTX checkpoint"):
        open_model(str(tmp_path), ModelPaths(), distilled=False)
    with pytest.raises(CheckpointError):
        open_model(str(path), ModelPaths(), distilled=False)


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path / "a\0b", tmp_path / ("a" * 300), Path("~nobody/x")):
        with pytest.raises(CheckpointError):
            SafetensorsFile(path)


QUANTISED: list[tuple[str, dict[str, torch.dtype]]] = [
    ("int8 .bitsandbytes", {"weight": torch.int8, "SCB": torch.float32}),
    (
        "nf4 .bitsandbytes",
        {"weight": torch.uint8, "weight.quant_state.bitsandbytes__nf4": torch.uint8},
    ),
    ("GPTQ or AWQ", {"qweight": torch.int32, "scales": torch.float16}),
    (
        "fp8 with a scale for every block",
        {"weight": torch.float8_e4m3fn, "weight_scale_inv": torch.float32},
    ),
    (
        "nvfp4 of compressed-tensors",
        {"weight_packed": torch.uint8, "weight_global_scale": torch.float32},
    ),
    ("quanto", {"weight._data": torch.int8, "weight._scale": torch.float32}),
]


@pytest.mark.parametrize(("what", "dtypes"), QUANTISED)
def test_formats_without_a_reader_are_named(
    tmp_path: Path, what: str, dtypes: dict[str, torch.dtype]
) -> None:
    prefix = "model.diffusion_model.transformer_blocks.0.attn1.to_q."
    tensors = {f"{prefix}{name}": torch.zeros(4, dtype=dtype) for name, dtype in dtypes.items()}
    path = tmp_path / "quantised.safetensors"
    save_file(tensors, path, {"config": '{"transformer": {}}'})
    words = rf"quantised\.safetensors is quantised \({what}.*not supported; take the bfloat16"
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint([SafetensorsFile(path)])
    with pytest.raises(CheckpointError, match=words):
        open_model(str(tmp_path), ModelPaths(), distilled=False)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_integers_for_weights(demo_model: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    source = with_config(demo_model, tmp_path, {}, dtype)
    with pytest.raises(CheckpointError, match="quantised without the scales that it needs"):
        build_component(source, LTX_2_3)


def with_config(
    demo_model: Path, tmp_path: Path, changes: dict[str, Any], dtype: torch.dtype | None = None
) -> Any:
    """The demonstration model's transformer with another config, or another dtype of a weight."""
    file = SafetensorsFile(demo_model / CHECKPOINT)
    config = dict(file.config)
    config["transformer"] = config["transformer"] | changes
    start = "model.diffusion_model."
    tensors = {
        key: torch.empty(info.shape, dtype=info.dtype)
        for key, info in file.tensors.items()
        if key.startswith(start) and "connector" not in key
    }
    if dtype is not None:
        name = f"{start}transformer_blocks.1.attn1.to_q.weight"
        tensors[name] = tensors[name].to(dtype)
    metadata = dict(file.metadata) | {"config": json.dumps(config)}
    save_file(tensors, tmp_path / "changed.safetensors", metadata)
    return open_checkpoint([SafetensorsFile(tmp_path / "changed.safetensors")])[1]["transformer"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": 10**9}, "num_layers=1000000000, and its weights have 4 blocks"),
        ({"num_layers": 900}, "num_layers=900, and its weights have 4 blocks"),
        ({"num_layers": -1}, "num_layers=-1, and its weights"),
        ({"num_layers": "4"}, "num_layers='4', and its weights"),
        ({"num_layers": None}, "num_layers=None"),
        ({"num_attention_heads": 2**40}, "number out of bounds"),
        ({"num_attention_heads": 10**400}, "number out of bounds"),
        ({"num_attention_heads": 2.5}, "num_attention_heads: Input should be a valid integer"),
        ({"attention_head_dim": True}, "attention_head_dim: Input should be a valid integer"),
        ({"attention_head_dim": 0}, "attention_head_dim: Input should be greater than 0"),
        ({"attention_head_dim": 7}, "attention_head_dim|is wrong|is .* by the config it is"),
        ({"attention_head_dim": 999_999}, "by the config it is"),
        ({"positional_embedding_max_pos": [20]}, "positional_embedding_max_pos: List should have"),
        ({"positional_embedding_max_pos": 20}, "positional_embedding_max_pos: Input should be"),
        ({"norm_eps": float("inf")}, "is not JSON"),
        ({"norm_eps": "small"}, "norm_eps: Input should be a valid number"),
        ({"x": [0] * 5000}, "this config has 5,000 values"),
        ({"x": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}, "nested too deeply"),
        ({"rope_type": "other"}, "rope_type='other'; LTX-2.3 has 'split'"),
    ],
)
def test_configs(demo_model: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        build_component(with_config(demo_model, tmp_path, changes), LTX_2_3)


@pytest.mark.parametrize("config", [{"transformer": 5}, {"transformer": []}, {"vae": "x"}])
def test_parts_of_a_config_that_are_no_objects(tmp_path: Path, config: object) -> None:
    tensors = {"model.diffusion_model.x": torch.zeros(1), "vae.x": torch.zeros(1)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"config": json.dumps(config), "model_version": "2.3.0"})
    with pytest.raises(CheckpointError, match="of its config is not a JSON object"):
        open_checkpoint([SafetensorsFile(path)])
