"""The job that a worker is at: how far it is, noted in the store now and then."""

import time

from entracte.serve.jobs.job import Advance, Completion, Job
from entracte.serve.jobs.store import JobStore

from .messages import Done, Step

# Steps may be many a second; the store, and those who listen, hear of them so often.
NOTE_SECONDS = 0.4


class CurrentJob:
    """job: as it was claimed."""

    def __init__(self, job: Job, store: JobStore, lease_s: float) -> None:
        self.job = job
        self.stage: str | None = None
        self._store = store
        self._lease_s = lease_s
        self._noted_at = 0.0
        self._cancelled = False

    def beat(self) -> None:
        """The worker lives."""
        self._store.heartbeat(self.job, self._lease_s)

    def advance(self, step: Step) -> Job | None:
        """The worker is so far; the job as it is now, where that was worth noting."""
        now = time.monotonic()
        if step.stage == self.stage and now - self._noted_at < NOTE_SECONDS:
            return None
        self.stage, self._noted_at = step.stage, now
        # A hundred is for a video that is there.
        advance = Advance(
            step.stage,
            step.step,
            step.steps,
            min(99, int(step.fraction * 100)),
            step.seconds_left,
            step.stage_durations,
        )
        return self._store.heartbeat(self.job, self._lease_s, advance)

    def to_be_cancelled(self) -> bool:
        """Whether somebody wants the worker to stop; True once."""
        if self._cancelled or not self._store.cancel_wanted(self.job):
            return False
        self._cancelled = True
        return True

    def completion(self, done: Done) -> Completion:
        return Completion(done.stage_durations, done.peak_memory_mb, done.bytes)
