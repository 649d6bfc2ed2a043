"""The queue as clients see it: their position, and when their video will be ready."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from entracte.serve.jobs.job import Job
from entracte.serve.jobs.store import JobStore
from entracte.stages import MUX

# The database is read at most this often, however many clients poll.
FRESH_SECONDS = 0.3

# Assumed for a video without an estimate.
UNKNOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """position: 1 is next. eta_s: seconds until the video is ready."""

    position: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """A snapshot of the queue. seconds: until a video submitted now would start.

    next_s: until the first running job is done. queued_of, running_of: by owner.
    """

    queued: int
    running: int
    seconds: float
    next_s: float
    places: Mapping[str, QueuePlace] = field(default_factory=dict)
    queued_of: Mapping[str, int] = field(default_factory=Counter)
    running_of: Mapping[str, int] = field(default_factory=Counter)


def remaining(job: Job, now: float) -> float:
    """Seconds until a running job is done, by its own report, else by its estimate."""
    if job.seconds_left is not None:
        return job.seconds_left
    estimated = UNKNOWN_SECONDS if job.estimated_s is None else job.estimated_s
    return max(1.0, estimated - (now - (job.started_at or now)))


def predict_queue(
    waiting: Sequence[Job], running: Sequence[Job], workers: int, now: float
) -> QueueSnapshot:
    """Simulate the queue: every job starts on the first worker whose device is free."""
    next_s = min((remaining(job, now) for job in running), default=0.0)
    busy = [remaining(job, now) for job in running if job.stage != MUX.name]
    free = sorted(busy + [0.0] * (workers - len(busy))) or [UNKNOWN_SECONDS]
    places = {}
    for number, job in enumerate(waiting, start=1):
        takes = UNKNOWN_SECONDS if job.estimated_s is None else job.estimated_s
        done = free[0] + takes
        places[job.id] = QueuePlace(number, done)
        free = sorted([*free[1:], done])
    queued_of = Counter(job.owner for job in waiting)
    running_of = Counter(job.owner for job in running)
    return QueueSnapshot(len(waiting), len(running), free[0], next_s, places, queued_of, running_of)


class QueueReader:
    """Caches a snapshot for a short time; thread-safe. workers: how many there are."""

    def __init__(self, store: JobStore, workers: Callable[[], int]) -> None:
        self._store = store
        self._workers = workers
        self._lock = threading.Lock()
        self._snapshot = QueueSnapshot(0, 0, 0.0, 0.0)
        self._read_at = -FRESH_SECONDS

    def now(self) -> QueueSnapshot:
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH_SECONDS:
                waiting, running = self._store.waiting(), self._store.running()
                self._snapshot = predict_queue(waiting, running, self._workers(), self._store.now())
                self._read_at = time.monotonic()
            return self._snapshot

    def invalidate(self) -> None:
        """Read the queue again at the next call."""
        with self._lock:
            self._read_at = -FRESH_SECONDS
