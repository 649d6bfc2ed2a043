"""The job that a worker runs: what it reported, and what of that is in the store."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from entracte.serve.jobs.job import Advance, Completion, Job
from entracte.serve.jobs.store import JobStore

from .messages import Done, Step

# There may be many steps a second; the store and subscribers are updated this often.
NOTE_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ended. note: writes it down, and gives the job as it is then, None where it had
    been taken away.
    """

    note: Callable[[], Job | None]
    done: Done | None = None


class RunningJob:
    """job: as it was claimed. What the worker reports waits here until the store can take it.

    stage: the latest that was reported. ending: None while it is being made.
    """

    def __init__(self, job: Job, store: JobStore, lease_s: float) -> None:
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

    def heartbeat(self) -> None:
        """The worker lives."""
        self._heartbeat_due = True

    def advance(self, step: Step) -> None:
        """The worker is so far."""
        self.stage, self._step = step.stage, step

    def complete(self, done: Done) -> None:
        """The file is there."""
        completion = Completion(
            done.stage_durations, done.peak_memory_mb, done.bytes, done.warnings
        )
        self.ending = Ending(lambda: self._store.complete(self.job, completion), done)

    def fail(self, code: str, message: str) -> None:
        """There will be no file."""
        self.ending = Ending(lambda: self._store.fail(self.job, code, message))

    def lose(self, code: str, message: str) -> None:
        """The worker is gone; the job begins again, unless that was its last attempt."""
        self.ending = Ending(lambda: self._store.retry(self.job, code, message))

    def give_back(self) -> None:
        """It is to begin again later."""
        self.ending = Ending(lambda: self._store.give_back(self.job))

    def note(self) -> Job | None:
        """Report the store what is worth it; the job as it is now, where it has advanced.

        Raises DatabaseError.
        """
        step, now = self._step, time.monotonic()
        if step is not None and (
            step.stage != self._noted_stage or now - self._noted_at >= NOTE_SECONDS
        ):
            # A hundred is for a video that is there.
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
        """Whether somebody wants the worker to stop; True once. Raises DatabaseError."""
        if self._cancelled or not self._store.cancel_wanted(self.job):
            return False
        self._cancelled = True
        return True
