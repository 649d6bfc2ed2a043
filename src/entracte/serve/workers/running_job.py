"""A job that a worker runs: its reports, and which of them are in the store yet."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from entracte.serve.jobs.job import Advance, Completion, Job
from entracte.serve.jobs.store import JobStore
from entracte.stages import MUX

from .messages import Done, RunJob, Step

# There may be many steps a second; the store and subscribers are updated this often.
NOTE_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ended. note: stores it and returns the job, or None if the job was taken away."""

    note: Callable[[], Job | None]
    done: Done | None = None


class RunningJob:
    """Buffers the reports of a worker until the store can take them.

    job: as it was claimed. stage: the latest reported. ending: None while it runs. ask_s: how
    often to ask whether it is cancelled. work: what starts it, once its inputs are there. done,
    keeping: of its file, once it is written.
    """

    def __init__(self, job: Job, store: JobStore, lease_s: float, ask_s: float = 0.0) -> None:
        self.job = job
        self.stage: str | None = None
        self.ending: Ending | None = None
        self._store = store
        self._lease_s = lease_s
        self._heartbeat_due = False
        self._step: Step | None = None
        self._noted_stage: str | None = None
        self._noted_at = 0.0
        self._cancelled = False
        self._ask_s = ask_s
        self.work: Future[RunJob] | None = None
        self.done: Done | None = None
        self.keeping: Future[None] | None = None
        self._asked_at = 0.0

    @property
    def writing(self) -> bool:
        """Whether only its file is left to write, so that the device is free for another job."""
        return self.stage == MUX.name

    def heartbeat(self) -> None:
        """Note that the worker is alive."""
        self._heartbeat_due = True

    def advance(self, step: Step) -> None:
        """Note the worker's progress."""
        self.stage, self._step = step.stage, step

    def complete(self) -> None:
        """Note that the video is finished, and its file kept."""
        done = self.done
        assert done is not None
        completion = Completion(
            done.stage_durations, done.peak_memory_mb, done.bytes, done.warnings, self.job.output
        )
        self.ending = Ending(lambda: self._store.complete(self.job, completion), done)

    def fail(self, code: str, message: str) -> None:
        """Note that the video cannot be made."""
        self.ending = Ending(lambda: self._store.fail(self.job, code, message))

    def lose(self, code: str, message: str) -> None:
        """Note that the worker died; the job begins again, unless that was its last attempt."""
        self.ending = Ending(lambda: self._store.retry(self.job, code, message))

    def give_back(self) -> None:
        """Return the job to the queue."""
        self.ending = Ending(lambda: self._store.give_back(self.job))

    def note(self) -> Job | None:
        """Store what is due; returns the job if its progress was stored.

        Raises DatabaseError.
        """
        step, now = self._step, time.monotonic()
        if step is not None and (
            step.stage != self._noted_stage or now - self._noted_at >= NOTE_SECONDS
        ):
            # 100 is reserved for finished videos.
            percent = min(99, int(step.fraction * 100))
            advance = Advance(
                step.stage,
                step.step,
                step.steps,
                percent,
                step.seconds_left,
                step.stage_durations,
            )
            job = self._store.heartbeat(self.job, self._lease_s, advance)
            self._step, self._heartbeat_due = None, False
            self._noted_stage, self._noted_at = step.stage, now
            return job
        if self._heartbeat_due:
            self._store.heartbeat(self.job, self._lease_s)
            self._heartbeat_due = False
        return None

    def to_be_cancelled(self) -> bool:
        """Whether the job was cancelled; True only once. Raises DatabaseError."""
        now = time.monotonic()
        if self._cancelled or now - self._asked_at < self._ask_s:
            return False
        self._asked_at = now
        if not self._store.cancel_wanted(self.job):
            return False
        self._cancelled = True
        return True
