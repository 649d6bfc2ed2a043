"""Files that are damaged, or made to do harm: every one of them is a LoraError."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from entracte.errors import LoraError

from .model import ATTENTION, RANK, added, opened, pair, random, write

NAME = f"diffusion_model.{ATTENTION}.to_q"
ALPHA = f"{NAME}.alpha"
DOWN = f"{NAME}.lora_A.weight"


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (torch.tensor([]), r"\[0\], not one number"),
        (torch.tensor([1.0, 2.0]), r"\[2\], not one number"),
        (torch.tensor([[1.0, 2.0]]), "not one number"),
        (torch.tensor(torch.nan), "is nan"),
        (torch.tensor(-torch.inf), "is -inf"),
        (torch.tensor(True), "not one number"),
    ],
)
def test_alphas(tmp_path: Path, alpha: Tensor, words: str) -> None:
    path = write(tmp_path / "lora.safetensors", pair(NAME) | {ALPHA: alpha})
    with pytest.raises(LoraError, match=words) as refused:
        opened(path)
    assert ALPHA in str(refused.value)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", [DOWN, f"{NAME}.lora_B.weight"])
def test_factors_that_are_not_finite(
    tmp_path: Path, number: float, dtype: torch.dtype, key: str
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in pair(NAME).items()}
    tensors[key][-1, -1] = number
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    with pytest.raises(LoraError, match=f"{key} has numbers that are not finite"):
        added(lora, f"{ATTENTION}.to_q.weight")


def test_large_factors_are_finite(tmp_path: Path) -> None:
    """Though their sum is not."""
    tensors = {name: torch.full_like(tensor, 3e38) for name, tensor in pair(NAME).items()}
    tensors[DOWN] = tensors[DOWN] * 0 + 1e-38
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    assert torch.isfinite(added(lora, f"{ATTENTION}.to_q.weight")).all()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_other_floating_types_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in pair(NAME).items()}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    down, up = (tensor.float() for tensor in tensors.values())
    torch.testing.assert_close(added(lora, f"{ATTENTION}.to_q.weight"), up @ down)


def test_bytes_with_a_scale_elsewhere_are_never_applied(tmp_path: Path) -> None:
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in pair(NAME).items()}
    path = write(tmp_path / "lora.safetensors", tensors | {"scaled_fp8": random(1)})
    for partial in (False, True):
        with pytest.raises(LoraError, match="scales of quantised factors"):
            opened(path, partial)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_types_of_no_factor(tmp_path: Path, dtype: torch.dtype) -> None:
    path = write(tmp_path / "lora.safetensors", pair(NAME) | {DOWN: torch.ones(RANK, 16).to(dtype)})
    with pytest.raises(LoraError, match=f"{DOWN} is of .*, not a floating type"):
        opened(path)


@pytest.mark.parametrize(("down", "up"), [((0, 16), (16, 0)), ((4, 0), (16, 4))])
def test_factors_of_nothing(tmp_path: Path, down: tuple[int, int], up: tuple[int, int]) -> None:
    tensors = {DOWN: torch.zeros(*down), f"{NAME}.lora_B.weight": torch.zeros(*up)}
    with pytest.raises(LoraError, match="is empty"):
        opened(write(tmp_path / "lora.safetensors", tensors))


def test_a_rank_above_the_weights(tmp_path: Path) -> None:
    tensors = {DOWN: random(100, 16), f"{NAME}.lora_B.weight": random(16, 100)}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    wanted = random(16, 100) @ random(100, 16)
    torch.testing.assert_close(added(lora, f"{ATTENTION}.to_q.weight"), wanted)


ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS: dict[str, Any] = {
    "a shape in words": {DOWN: ENTRY | {"shape": "16"}},
    "a shape of words": {DOWN: ENTRY | {"shape": ["a"]}},
    "a shape of truths": {DOWN: ENTRY | {"shape": [True]}},
    "a negative shape": {DOWN: ENTRY | {"shape": [-1]}},
    "a huge shape": {DOWN: ENTRY | {"shape": [2**62, 0], "data_offsets": [0, 0]}},
    "a shape beyond everything": {DOWN: ENTRY | {"shape": [10**400, 0]}},
    "fractional offsets": {DOWN: ENTRY | {"data_offsets": [0.0, 4.0]}},
    "negative offsets": {DOWN: ENTRY | {"data_offsets": [-4, 0]}},
    "one offset": {DOWN: ENTRY | {"data_offsets": [0]}},
    "offsets beyond the file": {DOWN: ENTRY | {"data_offsets": [2**50, 2**50 + 4]}},
    "an unknown type": {DOWN: ENTRY | {"dtype": "Q4"}},
    "no type": {DOWN: {"shape": [1]}},
    "no entry": {DOWN: None},
    "metadata in a list": {"__metadata__": [], DOWN: ENTRY},
    "metadata of numbers": {"__metadata__": {"lora_adapter_metadata": 1}, DOWN: ENTRY},
    "a list": [],
    "nothing": {},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(tmp_path: Path, name: str) -> None:
    header = json.dumps(HEADERS[name]).encode()
    path = tmp_path / "lora.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(LoraError) as refused:
        opened(path)
    assert str(path) in str(refused.value)
    assert str(path) not in refused.value.reason


@pytest.mark.parametrize(
    "data",
    [
        b"", b"short", bytes(16), b"\xff" * 64, b"<!DOCTYPE html><html>" * 10,
        struct.pack("<Q", 10) + b"[" * 10, struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 2**60) + b"{}", b"version https://git-lfs.github.com/spec/v1\n" * 3,
    ],
)  # fmt: skip
def test_other_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(data)
    with pytest.raises(LoraError):
        opened(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="cannot read the file"):
        opened(tmp_path / "gone.safetensors")
    with pytest.raises(LoraError, match="folder without adapter_model"):
        opened(tmp_path)
    with pytest.raises(LoraError):
        opened(Path("nul\0name"))
