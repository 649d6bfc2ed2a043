import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.errors import CheckpointError


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file(
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)},
        path,
        {"config": json.dumps({"x": 1})},
    )
    return path


def test_reads_what_safetensors_wrote(good: Path) -> None:
    file = SafetensorsFile(good)
    assert torch.equal(Located(file, "a").tensor(), torch.arange(6.0).view(2, 3))
    assert Located(file, "b").tensor().dtype is torch.bfloat16
    assert file.config == {"x": 1}
    assert file.bytes_taken == 24 + 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_reads_into_memory_of_any_dtype(
    good: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entracte.checkpoints.read_tensor.CHUNK", 4)  # conversion in parts
    out = torch.empty(2, 3, dtype=dtype)
    SafetensorsFile(good).read("a", out)
    assert torch.equal(out, torch.arange(6.0).view(2, 3).to(dtype))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*gone.safetensors: No such file"):
        SafetensorsFile(tmp_path / "gone.safetensors")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        SafetensorsFile(tmp_path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="not a safetensors file: it has 0 bytes"):
        SafetensorsFile(path)


def test_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"PK\x03\x04 this is a zip file, or so it says" * 10)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        SafetensorsFile(path)


@settings(max_examples=60)
@given(cut=st.integers(min_value=1, max_value=200))
def test_truncated_anywhere(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """However much of the end is lost, the header or the data betrays it."""
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    save_file({"a": torch.ones(20)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    with pytest.raises(CheckpointError, match="truncated|not a safetensors file"):
        SafetensorsFile(path)


def test_wrong_size(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="damaged: a is .2. in F32 and has 4 bytes"):
        SafetensorsFile(path)
