"""Reports the progress of a generation, and asks whether it should stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from entracte.errors import Cancelled


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a generation.

    step, steps: of the stage; 0 of 0 where a stage has no steps.
    fraction: of all denoising work, 0 to 1. seconds_left: None until a step has been timed.
    """

    stage: str
    step: int
    steps: int
    fraction: float
    seconds_left: float | None


ProgressCallback = Callable[[Progress], None]


class Reporter:
    """Reports stages and steps, and raises Cancelled at the next of them once asked to stop.

    agree: whether all ranks of a group stop after a step, given whether this one was asked to.
    """

    def __init__(
        self,
        callback: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self._work = 0.0
        self._done = 0.0
        self._seconds = 0.0
        self._callback = callback
        self._should_stop = should_stop
        self._agree = agree
        self._stage = ""
        self._mark = time.perf_counter()

    def begin(self, work: float) -> None:
        """Set the denoising work of the whole run, in any unit proportional to time."""
        self._work = work

    def stage(self, name: str, steps: int = 0) -> None:
        """Note that a stage begins."""
        self._stage = name
        self._mark = time.perf_counter()
        self._tell(0, steps, self._asked())

    def step(self, step: int, steps: int, work: float) -> None:
        """Note that a step, and that much work, is done."""
        now = time.perf_counter()
        self._seconds += now - self._mark
        self._mark = now
        self._done += work
        self._tell(step, steps, self._agree(self._asked()))

    def check(self) -> None:
        """Raise Cancelled if asked to stop."""
        self._require(not self._asked())

    def _asked(self) -> bool:
        return self._should_stop is not None and self._should_stop()

    def _require(self, wanted: bool) -> None:
        if not wanted:
            raise Cancelled(f"stopped by the caller, in {self._stage}")

    def _tell(self, step: int, steps: int, stop: bool) -> None:
        self._require(not stop)
        if self._callback is None:
            return
        left = self._seconds / self._done * (self._work - self._done) if self._done else None
        fraction = min(1.0, self._done / self._work) if self._work else 0.0
        self._callback(Progress(self._stage, step, steps, fraction, left))
