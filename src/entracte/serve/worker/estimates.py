"""Estimates asked of a worker: how long a request would take."""

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from .messages import EstimateReply, EstimateRequest

# No further estimate is requested of a process while it owes this many replies.
MAX_PENDING = 4


class PendingEstimates:
    """Requests that the current process has not answered yet; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future[EstimateReply]] = {}

    def request(
        self, send: Callable[[EstimateRequest], bool], request: Mapping[str, Any], timeout: float
    ) -> EstimateReply | None:
        """The process's reply; None if it owes too many, or gives none in time."""
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
        """The process is gone: nothing will be answered."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for number, future in pending.items():
            future.set_result(EstimateReply(number))
