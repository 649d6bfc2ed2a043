"""The real engine in a worker's place: what it tells, and what it never tells."""

import shutil
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from entracte.engine import Engine
from entracte.errors import BudgetError, CheckpointError, DeviceFault, NotFinite, OutOfMemory
from entracte.recipes import Guidance
from entracte.request import LoraSpec, Request
from entracte.residency.policy import Residency
from entracte.residency.simulated import SimulatedAccelerator
from entracte.serve.fields import VideoFields
from entracte.serve.submission import request_of, resolve
from entracte.serve.workers.messages import MemoryReport, PreviewImage, RunJob, Step
from entracte.serve.workers.protocol import WorkFailed
from entracte.serve.workers.runner import EngineRunner
from entracte.synthetic.demo import DISTILLED_LORA
from tests.serve.running import LTX_2_3, PATIENCE, settings_for, small

STG_999 = Guidance(cfg=3.0, stg=1.0, stg_blocks=(999,))


def asked_for(tmp_path: Path, **fields: Any) -> Request:
    settings = settings_for(tmp_path)
    wanted = resolve(VideoFields(**small(**{"size": "192x128", **fields})), settings, LTX_2_3, {})
    return request_of(wanted.prompt, wanted.settings, {})


def job(tmp_path: Path, previews: bool = False, **fields: Any) -> RunJob:
    return RunJob("id", asked_for(tmp_path, **fields), str(tmp_path / "v.mp4"), previews)


@pytest.fixture(scope="module")
def runner(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRunner]:
    usual = asked_for(tmp_path_factory.mktemp("usual"))
    made = EngineRunner(Engine.open(demo_model, device="cpu"), usual, warm=True)
    told: list[Any] = []
    made.warm_up(told.append)
    assert isinstance(told[-1], MemoryReport)
    yield made
    made.close()


def test_a_video_with_steps_previews_and_memory(runner: EngineRunner, tmp_path: Path) -> None:
    told: list[Any] = []
    output = tmp_path / "v.mp4"
    done = runner.run(
        job(tmp_path, previews=True, size="180x120"),
        told.append,
        lambda: False,
    )()
    with av.open(str(output)) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (180, 120)
    assert done.bytes == output.stat().st_size
    assert done.stage_durations["denoise"] > 0
    assert done.seconds == pytest.approx(sum(done.stage_durations.values()), rel=0.2)
    steps = [each for each in told if isinstance(each, Step)]
    assert [(s.step, s.steps) for s in steps if s.stage == "denoise"] == [(0, 2), (1, 2), (2, 2)]
    assert [(s.step, s.steps) for s in steps if s.stage == "refine"][-1] == (3, 3)
    assert [s.fraction for s in steps] == sorted(s.fraction for s in steps)
    assert (steps[-1].stage, steps[-1].fraction) == ("mux", 1)
    assert steps[-1].seconds_left == pytest.approx(0, abs=1e-6)
    previews = [each for each in told if isinstance(each, PreviewImage)]
    assert [p.step for p in previews] == [1, 2, 1, 2, 3]
    picture = Image.open(BytesIO(previews[-1].image))
    assert picture.format == "WEBP"
    assert picture.width / picture.height == pytest.approx(192 / 128)
    memory = [each for each in told if isinstance(each, MemoryReport)][-1]
    assert {row.component for row in memory.rows} >= {"transformer", "video_vae"}
    assert all(row.content in ("base", "merged", "factors", "empty") for row in memory.rows)
    assert str(tmp_path) not in repr(told)


@pytest.mark.slow
def test_an_estimate_is_near_once_a_video_was_made(runner: EngineRunner, tmp_path: Path) -> None:
    wanted = asked_for(tmp_path, num_inference_steps=6)
    done = runner.run(job(tmp_path, num_inference_steps=6), lambda _: None, lambda: False)()
    longer = runner.estimate(asked_for(tmp_path, num_inference_steps=30))
    estimated = runner.estimate(wanted)
    assert estimated is not None
    assert longer is not None
    assert longer > estimated > 0
    assert done.seconds / 10 < estimated < done.seconds * 10


def damaged_lora(folder: Path) -> LoraSpec:
    (folder / "style.safetensors").write_bytes(b"\xff" * 100)
    return LoraSpec(folder / "style.safetensors", name="style")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (lambda _: {"prompt": "one " * 1100}, "invalid_request", "tokens"),
        (lambda _: {"negative_prompt": "one " * 1100}, "invalid_request", "tokens"),
        (lambda _: {"video_guidance": STG_999}, "invalid_request", "999"),
        (lambda path: {"loras": (damaged_lora(path),)}, "invalid_lora", "style"),
    ],
)
def test_what_cannot_be_made_is_refused_when_it_is_asked_for(
    runner: EngineRunner, tmp_path: Path, changes: Any, code: str, words: str
) -> None:
    wanted = asked_for(tmp_path).model_copy(update=changes(tmp_path))
    piece = RunJob("id", wanted, str(tmp_path / "v.mp4"))
    for refuse in (
        lambda: runner.estimate(wanted),
        lambda: runner.run(piece, lambda _: None, lambda: False),
    ):
        with pytest.raises(WorkFailed, match=words) as failed:
            refuse()
        assert (failed.value.code, failed.value.fatal) == (code, False)
        assert str(tmp_path) not in failed.value.message


@pytest.mark.slow
def test_a_lora_is_called_as_the_client_knows_it(
    runner: EngineRunner, demo_model: Path, tmp_path: Path
) -> None:
    tensors = load_file(demo_model / DISTILLED_LORA) | {"other.lora_A.weight": torch.ones(2, 2)}
    path = tmp_path / "secret place.safetensors"
    save_file(tensors, path)
    settings = settings_for(tmp_path)

    def asked(partial: bool) -> Request:
        loras = [{"name": "My Style", "partial": partial}]
        fields = VideoFields(**small(size="192x128", loras=loras))
        names = {"My Style": path}
        return request_of("x", resolve(fields, settings, LTX_2_3, names).settings, names)

    output = str(tmp_path / "v.mp4")
    for ask in (
        lambda: runner.estimate(asked(False)),
        lambda: runner.run(RunJob("id", asked(False), output), lambda _: None, lambda: False),
    ):
        with pytest.raises(WorkFailed) as refused:
            ask()
        assert refused.value.code == "invalid_lora"
        assert refused.value.message.startswith("The LoRA 'My Style' cannot be used: 1 of its 329")
        assert "other.lora_A.weight" in refused.value.message
        assert '"partial": true' in refused.value.message
        assert "--" not in refused.value.message
        assert "secret" not in refused.value.message
    done = runner.run(RunJob("id", asked(True), output), lambda _: None, lambda: False)()
    (warning,) = done.warnings
    assert (warning["lora"], warning["keys"]) == ("My Style", ["other.lora_A.weight"])
    assert "secret" not in repr(done)
    path.write_bytes(b"<html>")
    with pytest.raises(WorkFailed, match="The LoRA 'My Style' cannot be used: ") as refused:
        runner.estimate(asked(True))
    assert "secret" not in refused.value.message


@pytest.mark.slow
def test_without_room_for_the_usual_video_smaller_ones_are_made(
    demo_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = asked_for(tmp_path, size="512x512", num_frames=97)
    accelerator = SimulatedAccelerator(device_limit=8_000_000)
    engine = Engine.open(demo_model, backend=accelerator, residency=Residency("fused"))
    runner = EngineRunner(engine, usual, warm=True)
    runner.warm_up(lambda _: None)
    assert "no room for the default video" in caplog.text
    runner.close()


def test_cancelling_leaves_no_file(runner: EngineRunner, tmp_path: Path) -> None:
    told: list[Any] = []

    def after_one_step() -> bool:
        return any(isinstance(each, Step) and each.step == 1 for each in told)

    with pytest.raises(WorkFailed) as failed:
        runner.run(
            job(tmp_path),
            told.append,
            after_one_step,
        )
    assert (failed.value.code, failed.value.fatal) == ("cancelled", False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "fatal"),
    [
        (OutOfMemory("CUDA at /srv/models"), "out_of_memory", True),
        (MemoryError(), "out_of_memory", True),
        (DeviceFault("/srv/models"), "device_fault", True),
        (BudgetError("--mode fused"), "does_not_fit", False),
        (CheckpointError("cannot read /srv/models/x"), "model_error", False),
        (NotFinite("denoise made none: /srv/models/x"), "not_finite", False),
    ],
)
def test_errors_have_words_for_clients_without_paths(
    runner: EngineRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
    fatal: bool,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Engine, "generate", fail)
    with pytest.raises(WorkFailed) as failed:
        runner.run(
            job(tmp_path),
            lambda _: None,
            lambda: False,
        )
    assert (failed.value.code, failed.value.fatal) == (code, fatal)
    assert "/srv" not in failed.value.message
    assert failed.value.detail == str(error)


def test_an_output_that_cannot_be_written(runner: EngineRunner, tmp_path: Path) -> None:
    output = str(tmp_path / "gone" / "v.mp4")
    with pytest.raises(WorkFailed) as failed:
        runner.run(RunJob("id", asked_for(tmp_path), output), lambda _: None, lambda: False)
    assert failed.value.code == "storage_failed"
    assert str(tmp_path) not in failed.value.message


@pytest.mark.slow
def test_a_failure_of_the_writing_comes_when_it_is_finished(
    runner: EngineRunner, tmp_path: Path
) -> None:
    folder = tmp_path / "video"
    folder.mkdir()
    piece = RunJob("id", asked_for(tmp_path), str(folder / "v.mp4"))
    gone, caller = threading.Event(), threading.current_thread()

    def hold_the_writing() -> bool:
        return threading.current_thread() is not caller and not gone.wait(PATIENCE)

    finish = runner.run(piece, lambda _: None, hold_the_writing)
    shutil.rmtree(folder)
    gone.set()
    with pytest.raises(WorkFailed) as failed:
        finish()
    assert (failed.value.code, failed.value.fatal) == ("storage_failed", False)
    assert str(tmp_path) not in failed.value.message
