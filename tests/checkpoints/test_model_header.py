"""What a server reads of its model: the header alone, of the file that is then opened."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entracte.checkpoints.model_header import ModelHeader, read_model_header
from entracte.errors import CheckpointError
from entracte.versions import DEFAULTS, DEFAULTS_2_3

from .fake_hub import FakeHub, running, use

BASE, DISTILLED = "ltx-9-dev.safetensors", "ltx-9-distilled.safetensors"
MODEL = "Lightricks/LTX-2.3"
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the port of `discard`


@pytest.fixture(autouse=True)
def another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if LTX-2.9 could be run."""
    defaults = {**DEFAULTS, "2.9": replace(DEFAULTS_2_3, num_frames=9)}
    monkeypatch.setattr("entracte.checkpoints.versions.DEFAULTS", defaults)
    monkeypatch.setattr("entracte.checkpoints.model_header.DEFAULTS", defaults)


def write(
    path: Path, version: str = "2.3.1", layers: object = 48, part: str = "transformer"
) -> None:
    """A checkpoint as far as its header goes."""
    config = {part: {"num_layers": layers, "cross_attention_adaln": True}}
    key = "model.diffusion_model.x" if part == "transformer" else f"{part}.x"
    metadata = {"config": json.dumps(config), "model_version": version}
    save_file({key: torch.zeros(1)}, path, metadata)


def read(model: Path | str, *checkpoint: Path, distilled: bool = False) -> ModelHeader:
    return read_model_header(str(model), checkpoint, distilled)


def test_prompts_that_come_with_a_model(tmp_path: Path) -> None:
    write(tmp_path / BASE)
    assert read(tmp_path).examples == ()
    (tmp_path / "example-prompts.txt").write_text("A red ball.\n\n  A blue cube. \n" + "x\n" * 9)
    assert read(tmp_path).examples == ("A red ball.", "A blue cube.", *["x"] * 4)


def test_the_version_and_its_defaults(tmp_path: Path) -> None:
    write(tmp_path / BASE)
    write(tmp_path / DISTILLED, "2.9", 4)
    write(tmp_path / "vae.safetensors", part="vae")
    (tmp_path / "notes.safetensors").write_text("no model")
    assert read(tmp_path) == ModelHeader("2.3", 48)
    assert read(tmp_path, distilled=True) == ModelHeader("2.9", 4)
    assert read(tmp_path).defaults is DEFAULTS_2_3
    assert read(tmp_path, distilled=True).defaults.num_frames == 9
    # Explicit files win, as they do where weights are opened.
    assert read(tmp_path, tmp_path / DISTILLED) == ModelHeader("2.9", 4)
    assert read_model_header(None, [tmp_path], distilled=False) == ModelHeader("2.3", 48)
    write(tmp_path / "ltx-9-dev-1.1.safetensors", "2.9", 6)
    assert read(tmp_path) == ModelHeader("2.9", 6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"version": "2.8"}, r"is LTX-2\.8; this release runs LTX-2\.0"),
        ({"layers": None}, "its config has num_layers=None"),
        ({"layers": True}, "its config has num_layers=True"),
        ({"layers": 10**9}, "its config has num_layers=1000000000"),
        ({"part": "vae"}, "num_layers=None"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, given: dict[str, object], words: str
) -> None:
    write(tmp_path / BASE, **given)
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path, tmp_path / BASE)
    with pytest.raises(CheckpointError, match="holds no LTX checkpoint"):
        read(tmp_path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model is named"):
        read_model_header(None, (), distilled=False)
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="No such file"):
        read(tmp_path, tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not an LTX checkpoint"):
        read(tmp_path, tmp_path / "other.safetensors")


def test_a_server_needs_no_torch_for_it(tmp_path: Path) -> None:
    write(tmp_path / BASE)
    code = (
        "import sys; from entracte.checkpoints.model_header import read_model_header as read; "
        "print(read(sys.argv[1], (), False).layers, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "48 False\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    write(folder / "ltx-2.3-22b-dev.safetensors", layers=5)
    write(folder / "ltx-2.3-22b-distilled.safetensors", "2.9", 6)
    return folder


@pytest.fixture
def online(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running(FakeHub({MODEL: repository})) as fake:
        use(fake.url, tmp_path / "cache", monkeypatch)
        yield fake


def test_of_a_repository_one_header_is_fetched(online: FakeHub, tmp_path: Path) -> None:
    assert read(MODEL) == ModelHeader("2.3", 5)
    assert [path.rpartition("/")[2] for path in online.asked if "/resolve/" in path] == [
        "ltx-2.3-22b-dev.safetensors"
    ]
    assert not (tmp_path / "cache").exists()
    assert read(MODEL, distilled=True) == ModelHeader("2.9", 6)


def test_of_a_repository_in_diffusers_layout_only_configs_are_fetched(
    online: FakeHub, repository: Path, tmp_path: Path
) -> None:
    for path in repository.iterdir():
        path.unlink()
    (repository / "model_index.json").write_text('{"_class_name": "Other"}')
    (repository / "transformer").mkdir()
    (repository / "transformer" / "config.json").write_text("{}")
    (repository / "transformer" / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="holds a Other pipeline, not an LTX-2 one"):
        read(MODEL)
    fetched = {path.name for path in (tmp_path / "cache").glob("*/snapshots/**/*.*")}
    assert fetched == {"model_index.json", "config.json"}


def test_a_cached_repository_is_read_without_the_hub(
    online: FakeHub, repository: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "cache" / "models--Lightricks--LTX-2.3" / "snapshots" / "0"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(repository)
    assert read(MODEL) == ModelHeader("2.3", 5)
    assert online.asked == []


def test_what_the_hub_has_not(
    online: FakeHub, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository / "ltx-2.3-22b-dev.safetensors", "2.8")
    with pytest.raises(CheckpointError, match=r"ltx-2\.3-22b-dev\.safetensors is LTX-2\.8"):
        read(MODEL)
    (repository / "ltx-2.3-22b-dev.safetensors").write_text("no model at all")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read(MODEL)
    (repository / "ltx-2.3-22b-dev.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no LTX checkpoint under the published names"):
        read(MODEL)
    with pytest.raises(CheckpointError, match="is neither a folder here nor a repository"):
        read("some/thing")
    use(NOWHERE, tmp_path / "cache", monkeypatch)
    with pytest.raises(CheckpointError, match="the hub cannot be reached"):
        read(MODEL)
