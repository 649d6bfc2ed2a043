"""Which files of a folder are LoRAs, and what they are called."""

import os
import unicodedata
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from entracte.errors import RequestError
from entracte.serve.loras import MAX_DEPTH, LoraFolder, require_folder


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def warning(self, event: str, file: str, reason: str) -> None:
        assert event == "not offered as a LoRA"
        self.told.append((file, reason))


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(folder: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    log = Log()
    return LoraFolder(folder, log).paths(), log.told  # type: ignore[arg-type]


NAMES = [
    "plain",
    "My Style (v2)",
    "ünï & sp",
    "日本語 [映画]",
    "sub/inner",
    "a/b/c/deep",
    "dots.v1.2",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path / f"{name}.safetensors")
    assert listed(tmp_path) == ({unicodedata.normalize("NFC", name): path}, [])


def test_a_decomposed_name_is_found_by_its_usual_form(tmp_path: Path) -> None:
    path = touch(tmp_path / (unicodedata.normalize("NFD", "ünï") + ".safetensors"))
    assert listed(tmp_path)[0] == {"ünï": path}


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"])
def test_a_folder_of_peft_is_one_lora(tmp_path: Path, file: str) -> None:
    touch(tmp_path / "people" / "Jo" / file, "four")
    touch(tmp_path / "people" / "Jo" / "adapter_config.json")
    log = Log()
    folder = LoraFolder(tmp_path, log)  # type: ignore[arg-type]
    assert folder.paths() == {"people/Jo": tmp_path / "people" / "Jo"}
    assert folder.sizes() == {"people/Jo": 4}
    assert log.told == []


def test_what_is_hidden_or_something_else_is_left_alone(tmp_path: Path) -> None:
    for name in (".hidden.safetensors", "._x.safetensors", ".git/x.safetensors", "notes.txt"):
        touch(tmp_path / name)
    assert listed(tmp_path) == ({}, [])


def test_what_cannot_be_offered_is_said_once(tmp_path: Path) -> None:
    touch(tmp_path / "old.pt")
    touch(tmp_path / "tab\there.safetensors")
    touch(tmp_path / ("long" * 55 + ".safetensors"))
    touch(tmp_path / "twice.safetensors")
    touch(tmp_path / "twice" / "adapter_model.safetensors")
    touch(tmp_path.joinpath(*["d"] * (MAX_DEPTH + 1), "x.safetensors"))
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"\xff.safetensors")).touch()
    log = Log()
    folder = LoraFolder(tmp_path, log)  # type: ignore[arg-type]
    assert [*folder.paths()] == ["twice"]
    assert [*folder.paths()] == ["twice"]
    reasons = dict(log.told)
    assert len(reasons) == len(log.told) == 9
    assert ".pt files are not read" in reasons["'old.pt'"]
    assert "not printable" in reasons["'tab\\there.safetensors'"]
    assert "not a file" in reasons["'pipe.safetensors'"]
    assert "link to a folder" in reasons["'loop'"]
    assert all(str(tmp_path) not in file for file in reasons)


def test_no_folder() -> None:
    assert LoraFolder(None, CapturingLogger()).paths() == {}  # type: ignore[arg-type]
    require_folder(None)
    with pytest.raises(RequestError, match="is not a folder"):
        require_folder(Path("nowhere"))
