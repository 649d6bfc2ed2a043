import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entracte.files import write_atomically
from entracte.synthetic.demo import write_demo_model


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_have_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    """Also those that safetensors makes, which only their owner may read otherwise."""
    with write_atomically(tmp_path / "x.safetensors") as part:
        save_file({"a": torch.zeros(1)}, part)
    assert mode(tmp_path / "x.safetensors") == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


def test_the_demo_model_may_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        written = write_demo_model(tmp_path)
    finally:
        os.umask(before)
    assert {mode(path) for path in written} == {0o644}
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
