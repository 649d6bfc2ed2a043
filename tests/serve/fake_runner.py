"""A runner without an engine: what it does is in the prompt. It runs in a real worker's process."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np

from entracte.errors import CheckpointError, OutOfMemory
from entracte.files import write_atomically
from entracte.request import Request
from entracte.serve.workers.messages import (
    Done,
    MemoryReport,
    MemoryRow,
    PreviewImage,
    RunJob,
    Step,
)
from entracte.serve.workers.protocol import Finish, Report, WorkFailed

FRAMES = 9


@dataclass(frozen=True)
class OpenFake:
    """step_s: seconds a step takes. estimate_s: of every video. opening: what goes wrong then.

    hold: while there is such a file, videos wait between their first and their second step.
    """

    step_s: float = 0.005
    estimate_s: float | None = 2.0
    opening: Literal["", "refuse", "raise", "panic", "die", "memory"] = ""
    hold: Path | None = None

    def __call__(self) -> "FakeRunner":
        match self.opening:
            case "refuse":
                raise CheckpointError("cannot read model.safetensors: there is none")
            case "raise":
                raise KeyError("num_layers")
            case "panic":
                raise Panic("index out of bounds")
            case "memory":
                raise OutOfMemory("another process has it")
            case "die":
                os.kill(os.getpid(), signal.SIGBUS)
        return FakeRunner(self)


class Panic(BaseException):
    """As Rust libraries have them: not an Exception."""


class FakeRunner:
    device = "fake"

    def __init__(self, options: OpenFake) -> None:
        self._options = options

    def warm_up(self, report: Report) -> None:
        report(
            MemoryReport(
                (MemoryRow("transformer", "device", "base", 1000),), 5000, 1200, 300, "fused", "f"
            )
        )

    def run(self, job: RunJob, report: Report, should_stop: Callable[[], bool]) -> Finish:
        word, _, number = job.request.prompt.partition(" ")
        steps = int(number) if word == "steps" else 4
        begun = time.perf_counter()
        for step in range(1, steps + 1):
            while step == 2 and self._held() and not should_stop():
                time.sleep(0.02)
            if should_stop():
                raise WorkFailed("cancelled", "Cancelled.")
            time.sleep(self._options.step_s)
            report(Step(job.job_id, "denoise", step, steps, step / steps, (steps - step) * 0.1))
            if job.previews:
                time.sleep(0.3)  # until somebody looks
                report(PreviewImage(job.job_id, step, b"RIFF picture"))
            if step == 2:
                self._misbehave(word)
        report(Step(job.job_id, "mux", 0, 0, 1.0, 0.0))

        def finish() -> Done:
            self._misbehave_in_writing(word, job, should_stop)
            data = video_bytes(job.request.width, job.request.height)
            with write_atomically(Path(job.output)) as part:
                part.write_bytes(data)
            took = time.perf_counter() - begun
            return Done(job.job_id, took, {"denoise": took}, 12.5, len(data))

        return finish

    def _misbehave_in_writing(
        self, word: str, job: RunJob, should_stop: Callable[[], bool]
    ) -> None:
        while word == "write-slowly" and not let_go(job.output).exists():
            if should_stop():
                raise WorkFailed("cancelled", "Cancelled.")
            time.sleep(0.005)
        if word == "write-refuse":
            raise WorkFailed("media_error", "The server cannot encode it.", "/secret/path")
        if word == "write-exhaust":
            raise MemoryError
        if word == "write-crash":
            os.kill(os.getpid(), signal.SIGKILL)

    def _held(self) -> bool:
        return self._options.hold is not None and self._options.hold.exists()

    def _misbehave(self, word: str) -> None:
        if word == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "raise":
            raise RuntimeError("a mistake of ours")
        if word == "panic":
            raise Panic("index out of bounds")
        if word == "exhaust":
            raise MemoryError
        if word == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if word == "memory":
            raise WorkFailed("out_of_memory", "There was not enough memory.", "at 0x1", fatal=True)
        if word == "refuse":
            raise WorkFailed("model_error", "The server cannot read it.", "/secret/path")

    def estimate(self, request: Request) -> float | None:
        match request.prompt.partition(" ")[0]:
            case "estimate-raises":
                raise TypeError("'<' not supported between 'str' and 'int'")
            case "estimate-panics":
                raise Panic("index out of bounds")
            case "estimate-hangs":
                threading.Event().wait()
            case "estimate-refuses":
                raise WorkFailed("invalid_request", "prompt: has 1,100 of 1,024 tokens")
        return self._options.estimate_s

    def close(self) -> None:
        pass


def let_go(output: str | Path) -> Path:
    """Once it exists, a video that is written slowly is written."""
    return Path(output).with_name("let go")


def video_bytes(width: int = 64, height: int = 64) -> bytes:
    """A short grey video."""
    import io

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for level in range(FRAMES):
            pixels = np.full((height, width, 3), level * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return file.getvalue()
