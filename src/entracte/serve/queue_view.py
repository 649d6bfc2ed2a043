"""The queue as those who wait see it: their place, and when their video will be there."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from entracte.serve.jobs.job import Job
from entracte.serve.jobs.store import JobStore

# Many ask at once; the queue is looked at so often.
FRESH_SECONDS = 0.3

# What a video is taken to need while nothing is known of any.
UNKNOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """position: 1 is next. eta_s: seconds until the video is there."""

    position: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """A moment of the queue. seconds: until a video that is asked for now would begin.

    next_s: until the first of the running ones is done. queued_of, running_of: by owner.
    """

    queued: int
    running: int
    seconds: float
    next_s: float
    places: Mapping[str, Place] = field(default_factory=dict)
    queued_of: Mapping[str, int] = field(default_factory=Counter)
    running_of: Mapping[str, int] = field(default_factory=Counter)


def remaining(job: Job, now: float) -> float:
    """Seconds that a running job will still take, by what it or its estimate says."""
    if job.seconds_left is not None:
        return job.seconds_left
    estimated = UNKNOWN_SECONDS if job.estimated_s is None else job.estimated_s
    return max(1.0, estimated - (now - (job.started_at or now)))


def line_up(waiting: Sequence[Job], running: Sequence[Job], workers: int, now: float) -> Line:
    """Have every job begin when the first worker is free."""
    free = sorted(remaining(job, now) for job in running)
    next_s = free[0] if free else 0.0
    free = sorted(free + [0.0] * (workers - len(free))) or [UNKNOWN_SECONDS]
    places = {}
    for number, job in enumerate(waiting, start=1):
        takes = UNKNOWN_SECONDS if job.estimated_s is None else job.estimated_s
        done = free[0] + takes
        places[job.id] = Place(number, done)
        free = sorted([*free[1:], done])
    queued_of = Counter(job.owner for job in waiting)
    running_of = Counter(job.owner for job in running)
    return Line(len(waiting), len(running), free[0], next_s, places, queued_of, running_of)


class LineView:
    """The queue of now; from any thread."""

    def __init__(self, store: JobStore, workers: int) -> None:
        self._store = store
        self._workers = workers
        self._lock = threading.Lock()
        self._seen = Line(0, 0, 0.0, 0.0)
        self._seen_at = -FRESH_SECONDS

    def now(self) -> Line:
        with self._lock:
            if time.monotonic() - self._seen_at >= FRESH_SECONDS:
                waiting, running = self._store.waiting(), self._store.running()
                self._seen = line_up(waiting, running, self._workers, time.time())
                self._seen_at = time.monotonic()
            return self._seen

    def forget(self) -> None:
        """The queue has changed."""
        with self._lock:
            self._seen_at = -FRESH_SECONDS
