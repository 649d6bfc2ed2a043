"""Estimates of how long requests take: asked of workers, and corrected by what was measured."""

import itertools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from statistics import median

from entracte.request import Request

from .messages import EstimateReply, EstimateRequest

# No further estimate is requested of a process while it owes this many replies.
MAX_PENDING = 4

# Only the latest videos count: the machine, or its load, may have changed.
REMEMBERED = 7


class PendingEstimates:
    """Requests that the current process has not answered yet; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future[EstimateReply]] = {}

    def request(
        self, send: Callable[[EstimateRequest], bool], request: Request, timeout: float
    ) -> EstimateReply | None:
        """The process's reply; None if it owes too many, or does not reply in time."""
        with self._lock:
            if len(self._pending) >= MAX_PENDING:
                return None
            number, future = next(self._numbers), Future[EstimateReply]()
            self._pending[number] = future
        if not send(EstimateRequest(number, request)):
            self.resolve(EstimateReply(number))
        try:
            return future.result(timeout)
        except TimeoutError:
            return None  # the process still owes it

    def resolve(self, reply: EstimateReply) -> None:
        with self._lock:
            future = self._pending.pop(reply.number, None)
        if future is not None:
            future.set_result(reply)

    def forget(self) -> None:
        """Resolve all requests without a result, because the process is gone."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for number, future in pending.items():
            future.set_result(EstimateReply(number))


class LatencyCorrection:
    """Scales by the median of measured over predicted time; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ratios: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, predicted: float | None, took: float) -> None:
        """Note the seconds that a video took. predicted: by the planner, before any correction."""
        if predicted is not None and predicted > 0:
            with self._lock:
                self._ratios.append(took / predicted)

    def corrected(self, predicted: float | None) -> float | None:
        with self._lock:
            if predicted is None or not self._ratios:
                return predicted
            return predicted * median(self._ratios)
