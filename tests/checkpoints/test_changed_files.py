"""Files that are truncated, rewritten or replaced while they are open."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entracte import Engine, Progress, Request, Residency
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.errors import CheckpointChanged, CheckpointError
from entracte.synthetic.demo import CHECKPOINT


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Other bytes in the same file, as `cp` over it writes them."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x7f\xff" * 1000)
    later(path)


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def later(path: Path) -> None:
    """Have the file's time differ, however coarse the clock of the file system is."""
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time + 10**9))


CHANGES = [truncate, overwrite, replace]


@pytest.fixture
def file(tmp_path: Path) -> SafetensorsFile:
    save_file({"a": torch.ones(20_000)}, tmp_path / "a.safetensors")
    return SafetensorsFile(tmp_path / "a.safetensors")


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_noticed(file: SafetensorsFile, change: Callable[[Path], None]) -> None:
    file.check_unchanged()
    change(file.path)
    with pytest.raises(CheckpointChanged, match=r"a\.safetensors was changed or replaced after"):
        file.check_unchanged()


@pytest.mark.parametrize("change", [truncate, overwrite])
def test_changed_bytes_are_not_read(file: SafetensorsFile, change: Callable[[Path], None]) -> None:
    change(file.path)
    with pytest.raises(CheckpointChanged):
        file.read("a", torch.empty(20_000))


@pytest.mark.parametrize("change", [replace, Path.unlink])
def test_a_file_that_has_lost_its_name_is_still_read(
    file: SafetensorsFile, change: Callable[[Path], None]
) -> None:
    change(file.path)
    out = torch.zeros(20_000)
    file.read("a", out)
    assert torch.equal(out, torch.ones(20_000))


def test_a_removed_file_is_not_complained_of(file: SafetensorsFile) -> None:
    file.path.unlink()
    file.check_unchanged()


def test_a_file_that_cannot_be_opened_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "bad").write_bytes(b"nothing of use")
    for _ in range(3):
        with pytest.raises(CheckpointError):
            SafetensorsFile(tmp_path / "bad")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


SMALL = Request(
    prompt="x", height=128, width=128, num_frames=9, num_inference_steps=2, pipeline="one-stage"
)


@pytest.fixture
def model(demo_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(demo_model, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.sampled(1)
@pytest.mark.parametrize("change", CHANGES)
def test_an_open_engine_refuses_the_next_request(
    model: Path, change: Callable[[Path], None]
) -> None:
    with Engine.open(model, residency=Residency("resident")) as engine:
        engine.prepare(SMALL)
        change(model / CHECKPOINT)
        with pytest.raises(CheckpointChanged, match="open it again"):
            engine.generate(SMALL)
    if change is replace:
        Engine.open(model).prepare(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("change", [truncate, overwrite])
def test_a_run_that_streams_from_the_disk_stops(
    model: Path, change: Callable[[Path], None]
) -> None:
    changed = []

    def at_the_first_step(progress: Progress) -> None:
        if progress.step == 1 and not changed:
            change(model / CHECKPOINT)
            changed.append(True)

    streamed = Residency("fused", places={"transformer": "disk"})
    with (
        Engine.open(model, residency=streamed) as engine,
        pytest.raises(CheckpointChanged, match="open it again"),
    ):
        engine.generate(SMALL, progress=at_the_first_step)
    assert changed
