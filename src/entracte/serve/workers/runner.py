"""Runs jobs with an engine, in a worker process."""

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from entracte.engine import Engine
from entracte.errors import (
    BudgetError,
    Cancelled,
    CheckpointChanged,
    CheckpointError,
    DeviceFault,
    EntracteError,
    LoraError,
    MediaError,
    NotFinite,
    OutOfMemory,
    PeerFailed,
    RequestError,
    WriteError,
)
from entracte.notices import Notice
from entracte.pipeline import preview
from entracte.planner.decision import describe
from entracte.planner.prediction import Prediction
from entracte.progress import Progress
from entracte.request import Request
from entracte.result import Result
from entracte.stages import MUX, Act, stages_of
from entracte.trace.memory import read_memory
from entracte.units import MIB

from .estimates import LatencyCorrection
from .messages import Done, MemoryReport, MemoryRow, PreviewImage, RunJob, Step
from .protocol import MEMORY_WORDS, Finish, Report, WorkFailed

logger = logging.getLogger(__name__)


# Loads what the first video would wait for: files, kernels, text encoder and decoders.
WARM_UP: Mapping[str, Any] = {"height": 256, "width": 256, "num_frames": 9}
WARM_UP_STEPS = 2

PREVIEW_WIDTH = 240

# Errors that will not go away.
REFUSED = frozenset({"invalid_request", "invalid_lora", "model_error"})

# How many of a warning's keys the client sees.
KEYS_SHOWN = 100


class EngineRunner:
    """Makes videos with one engine.

    usual: the request to load weights for. warm: whether to make a small video beforehand.
    """

    def __init__(self, engine: Engine, usual: Request, warm: bool) -> None:
        self._engine = engine
        self._usual = usual
        self._warm = warm
        self._correction = LatencyCorrection()

    @property
    def device(self) -> str:
        return ",".join(map(str, self._engine.devices))

    def warm_up(self, report: Report) -> None:
        """Without room for the usual video, log it and serve smaller ones."""
        usual = self._usual
        try:
            if self._warm:
                self._engine.generate(_small(usual), keep_frames=False)
                self._engine.load(usual)
            else:
                self._engine.plan(usual)  # which measures the machine
        except (BudgetError, OutOfMemory) as error:
            logger.warning("there is no room for the default video: %s", error)
        report(self._memory())

    def run(self, job: RunJob, report: Report, should_stop: Callable[[], bool]) -> Finish:
        begun, names = time.perf_counter(), _names(job.request)
        with _words_for_clients(names):
            predicted = self._engine.predict(job.request)
            reporter = ProgressReporter(job.job_id, _tail(predicted), report, self._memory)
            computed = self._engine.generate(
                job.request,
                output_path=job.output,
                progress=reporter.note,
                should_stop=should_stop,
                keep_frames=False,
                preview=(lambda seen: report(_preview(job.job_id, seen))) if job.previews else None,
                wait=False,
            )
        report(self._memory())

        def finish() -> Done:
            with _words_for_clients(names):
                result = computed.wait()
            took = time.perf_counter() - begun
            self._correction.learn(None if predicted is None else predicted.latency_s, took)
            return _done(job, took, result)

        return finish

    def estimate(self, request: Request) -> float | None:
        try:
            with _words_for_clients(_names(request)):
                prediction = self._engine.predict(request)
        except WorkFailed as failure:
            if failure.code in REFUSED and not failure.fatal:
                raise
            return None  # it may fit when its turn comes
        return self._correction.corrected(None if prediction is None else prediction.latency_s)

    def close(self) -> None:
        self._engine.close()

    def _memory(self) -> MemoryReport:
        device = self._engine.backend.device
        total = used = None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            used = total - free
        rows = tuple(
            MemoryRow(row.component, row.where, _content(row.content), row.nbytes)
            for row in self._engine.residency()
        )
        plan = self._engine.decision
        prediction = None if plan is None else plan.chosen.prediction
        return MemoryReport(
            rows,
            total,
            used,
            int(read_memory(device).peak_host_anon_mb * MIB),
            None if prediction is None else prediction.way.mode,
            None if prediction is None else describe(prediction),
        )


class ProgressReporter:
    """Turns the engine's progress into steps with times.

    tail: seconds from the last step until only the file is left to write.
    """

    def __init__(
        self, job_id: str, tail: float, report: Report, memory: Callable[[], MemoryReport]
    ) -> None:
        self._job_id = job_id
        self._tail = tail
        self._report = report
        self._memory = memory
        self._durations: dict[str, float] = {}
        self._stage = ""
        self._since = time.perf_counter()

    def note(self, progress: Progress) -> None:
        now = time.perf_counter()
        if progress.stage != self._stage:
            if self._stage:
                before = self._durations.get(self._stage, 0.0)
                self._durations[self._stage] = before + now - self._since
            self._stage, self._since = progress.stage, now
            self._report(self._memory())
        tail = 0.0 if progress.stage == MUX.name else self._tail
        left = None if progress.seconds_left is None else progress.seconds_left + tail
        self._report(
            Step(
                self._job_id,
                progress.stage,
                progress.step,
                progress.steps,
                progress.fraction,
                left,
                dict(self._durations),
            )
        )


def _done(job: RunJob, took: float, result: Result) -> Done:
    durations: dict[str, float] = {}
    for span in result.trace.spans:
        durations[span.name] = durations.get(span.name, 0.0) + span.seconds
    peaks = [span.memory.peak_mb for span in result.trace.spans if span.memory is not None]
    return Done(
        job.job_id,
        took,
        durations,
        max(peaks, default=None),
        Path(job.output).stat().st_size,
        _warnings(result.warnings, _names(job.request)),
    )


def _small(usual: Request) -> Request:
    """A request that is quick, but uses everything that the usual one needs."""
    arguments = dict(WARM_UP)
    if usual.recipe.guided:
        arguments["num_inference_steps"] = WARM_UP_STEPS
    return Request(prompt="A test card", pipeline=usual.pipeline, **arguments)


def _tail(prediction: Prediction | None) -> float:
    """Seconds after the last step."""
    after = {stage.name for stage in stages_of() if stage.act is Act.FINISH}
    stages = () if prediction is None else prediction.stages
    return sum(stage.seconds for stage in stages if stage.name in after)


def _preview(job_id: str, seen: preview.Preview) -> PreviewImage:
    picture = Image.fromarray(seen.pixels.numpy())
    scale = max(1, PREVIEW_WIDTH // picture.width)
    picture = picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC
    )
    encoded = io.BytesIO()
    picture.save(encoded, format="WEBP", quality=75)
    return PreviewImage(job_id, seen.step, encoded.getvalue())


def _content(content: str) -> str:
    """What a buffer holds, without the paths of LoRAs."""
    return content if content in ("base", "factors", "empty") else "merged"


def _names(request: Request) -> dict[Path, str]:
    """The client's names of a request's LoRAs, by path."""
    return {lora.path: lora.name for lora in request.loras if lora.name is not None}


def _name(path: Path, names: Mapping[Path, str]) -> str | None:
    """The client's name of a LoRA, by its path or that of a file in its folder."""
    return names.get(path) or names.get(path.parent)


def _warnings(notices: Iterable[Notice], names: Mapping[Path, str]) -> tuple[dict[str, Any], ...]:
    """A result's warnings, without paths, and only for LoRAs that the client requested."""
    return tuple(
        {"lora": name, "message": each.message, "keys": list(each.keys[:KEYS_SHOWN])}
        for each in notices
        if (name := _name(each.path, names)) is not None
    )


@contextmanager
def _words_for_clients(names: Mapping[Path, str]) -> Iterator[None]:
    """Turn an engine's error into WorkFailed, with words for the client and details for the
    operator.

    names: the client's names of LoRAs, by path.
    """
    try:
        yield
    except Cancelled:
        raise WorkFailed("cancelled", "Cancelled.") from None
    except BudgetError as error:
        words = "This video does not fit the memory that the server has for it."
        raise WorkFailed("does_not_fit", words, str(error)) from error
    except (OutOfMemory, MemoryError) as error:
        raise WorkFailed("out_of_memory", MEMORY_WORDS, str(error), fatal=True) from error
    except DeviceFault as error:
        words = "The server's device failed. Try again."
        raise WorkFailed("device_fault", words, str(error), fatal=True) from error
    except PeerFailed as error:
        words = "One of the server's devices failed. Try again."
        raise WorkFailed("device_fault", words, str(error), fatal=True) from error
    except RequestError as error:
        raise WorkFailed("invalid_request", str(error)) from error
    except LoraError as error:
        name = _name(error.path, names)
        if name is None:
            words = "The server cannot use the model's own LoRA."
            raise WorkFailed("model_error", words, str(error)) from error
        advice = ' To have the rest of it applied, ask for it with "partial": true.'
        words = f"The LoRA {name!r} cannot be used: {error.reason}.{advice if error.partly else ''}"
        raise WorkFailed("invalid_lora", words, str(error)) from error
    except CheckpointChanged as error:
        words = "A file of the server's model changed, and is opened again. Try again."
        raise WorkFailed("model_error", words, str(error), fatal=True) from error
    except CheckpointError as error:
        words = "The server's model has no file for this, or one that cannot be read."
        raise WorkFailed("model_error", words, str(error)) from error
    except WriteError as error:
        words = "The server cannot write the video."
        raise WorkFailed("storage_failed", words, str(error)) from error
    except MediaError as error:
        words = "The server cannot read an image, or cannot encode the video."
        raise WorkFailed("media_error", words, str(error)) from error
    except NotFinite as error:
        words = (
            "The model produced NaN or infinities. A LoRA or a guidance scale may be too strong."
        )
        raise WorkFailed("not_finite", words, str(error)) from error
    except EntracteError as error:
        raise WorkFailed("failed", "The server cannot run this video.", str(error)) from error
