"""Models on the hub: fetched once, then opened from the cache, whatever the hub does."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entracte.checkpoints import hub
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, GEMMA, UPSAMPLER

from .fake_hub import FakeHub, running, use

MODEL = "Lightricks/LTX-2.3"
BASE = "ltx-2.3-22b-dev.safetensors"
LORA = "ltx-2.3-22b-distilled-lora-384-1.1.safetensors"
NEEDED = {BASE, LORA, "ltx-2.3-spatial-upscaler-x2-1.1.safetensors"}
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the port of `discard`


@pytest.fixture(scope="module")
def repositories(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demonstration model under the published names, with files that are not needed."""
    root = tmp_path_factory.mktemp("hub")
    folders = {MODEL: root / "ltx", hub.GEMMA_REPOSITORY: root / "gemma"}
    folders[MODEL].mkdir()
    shutil.copytree(demo_model / GEMMA, folders[hub.GEMMA_REPOSITORY])
    for ours, published in (
        (CHECKPOINT, BASE),
        (CHECKPOINT, "ltx-2.3-22b-distilled.safetensors"),
        (DISTILLED_LORA, "ltx-2.3-22b-distilled-lora-384.safetensors"),
        (DISTILLED_LORA, LORA),
        (UPSAMPLER, "ltx-2.3-spatial-upscaler-x2-1.0.safetensors"),
        (UPSAMPLER, "ltx-2.3-spatial-upscaler-x2-1.1.safetensors"),
    ):
        shutil.copy(demo_model / ours, folders[MODEL] / published)
    return folders


@pytest.fixture
def online(
    repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    with running(FakeHub(repositories)) as fake:
        use(fake.url, tmp_path, monkeypatch)
        yield fake


def open_it(name: str = MODEL) -> ModelSource:
    return open_model(name, ModelPaths(), distilled=False)


def test_what_is_needed_is_fetched_once(online: FakeHub, tmp_path: Path) -> None:
    source = open_it()
    assert source.distilled_lora is not None
    assert source.distilled_lora[0].path.name == LORA
    snapshot = source.distilled_lora[0].path.parent
    assert {each.name for each in snapshot.iterdir()} == NEEDED
    online.asked.clear()
    assert open_it().components.keys() == source.components.keys()
    assert online.asked == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("trees", [True, False], ids=["with trees", "without trees"])
@pytest.mark.parametrize("offline", [True, False], ids=["offline", "hub down"])
def test_a_cached_model_opens_without_the_hub(
    online: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
    trees: bool,
) -> None:
    open_it()
    if not trees:
        for folder in tmp_path.glob("*/trees"):
            shutil.rmtree(folder)
    use(NOWHERE, tmp_path, monkeypatch, offline)
    assert len(open_it().components) == 7


@pytest.mark.slow
def test_what_an_interrupted_download_left_is_completed(online: FakeHub, tmp_path: Path) -> None:
    open_it()
    next(tmp_path.glob(f"*/snapshots/*/{LORA}")).unlink()
    source = open_it()
    assert source.distilled_lora is not None


@pytest.mark.slow
@pytest.mark.parametrize("failure", [(500, ""), (503, ""), (429, "")])
def test_with_a_hub_that_fails_the_cache_serves_as_far_as_it_goes(
    online: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: tuple[int, str]
) -> None:
    open_it()
    next(tmp_path.glob(f"*/snapshots/*/{LORA}")).unlink()
    online.failure = failure
    online.asked.clear()
    with caplog.at_level(logging.WARNING):
        assert open_it().distilled_lora is None
    assert len(online.asked) == 1  # it is not asked again and again
    assert f"the hub answered {failure[0]} for {MODEL}; taking what is in" in caplog.text


def test_a_hub_that_does_not_answer(online: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.1)
    online.answering.clear()
    with pytest.raises(CheckpointError, match="and the hub cannot be reached"):
        open_it()
    assert len(online.asked) == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ((404, "RepoNotFound"), "is neither a folder here nor a repository on the hub"),
        ((401, "RepoNotFound"), "is neither a folder here nor a repository on the hub"),
        ((403, "GatedRepo"), r"is gated: accept its terms at http.*, then log in with `hf auth"),
        ((500, ""), "the hub answered 500 for Lightricks"),
        ((503, ""), "the hub answered 503"),
    ],
)
def test_refusals_of_the_hub(online: FakeHub, failure: tuple[int, str], words: str) -> None:
    online.failure = failure
    with pytest.raises(CheckpointError, match=words):
        open_it()
    assert len(online.asked) == 1


def test_a_text_encoder_whose_terms_are_not_accepted(online: FakeHub) -> None:
    online.gated.add(hub.GEMMA_REPOSITORY)
    with pytest.raises(CheckpointError, match=f"{hub.GEMMA_REPOSITORY} is gated: accept its terms"):
        open_it()


def test_a_repository_that_holds_no_model(online: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").touch()
    online.repositories = {"some/thing": tmp_path / "empty"}
    with pytest.raises(CheckpointError, match=r"some/thing holds no LTX checkpoint.*README\.md"):
        open_it("some/thing")


@pytest.mark.parametrize(
    "name", ["./nowhere", "../x", "/no/such", "~/nowhere", "~nobody/x", "a/b/c", "a/b/", "ltx", "."]
)
def test_names_of_folders_are_not_sent_to_the_hub(online: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist|holds no LTX|this home folder"):
        open_it(name)
    assert online.asked == []


def test_a_typing_error_within_a_folder_that_is_there(
    online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="model folder models/ltx does not exist"):
        open_it("models/ltx")
    assert online.asked == []


@pytest.mark.parametrize("name", ["a--b/c", "-a/b", "a/b..c", "a/b.git", "a b/c", "a/" + "b" * 200])
def test_names_that_no_repository_can_have(online: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder here nor a name that"):
        open_it(name)
    assert online.asked == []


def command(folder: Path, url: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`entracte generate` in a process of its own, as small as it can be."""
    arguments = "--height 64 --width 64 --num-frames 9 --num-inference-steps 2 --quiet --force"
    return subprocess.run(
        [sys.executable, "-m", "entracte", "generate", "--model", MODEL, "--prompt", "x"]
        + [*arguments.split(), "--output-path", str(folder / "out.mp4")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"HF_ENDPOINT": url, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
        | {"HF_HUB_OFFLINE": "0"}
        | environment,
    )


@pytest.mark.slow
def test_the_command(repositories: dict[str, Path], tmp_path: Path) -> None:
    """Online, then offline, then with no hub; nothing is printed but errors."""
    with running(FakeHub(repositories)) as fake:
        done = command(tmp_path, fake.url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for environment in ({"HF_HUB_OFFLINE": "1"}, {}):
        done = command(tmp_path, NOWHERE, **environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = command(tmp_path / "elsewhere", NOWHERE)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"entracte: {MODEL} is not whole in the hub's cache, and the hub cannot be reached"
    ]
