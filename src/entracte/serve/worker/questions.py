"""Questions to a worker about requests that may come: how long one would take."""

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from .messages import Answer, Ask

# A process that owes so many answers is asked no more until it gives one.
MAX_UNANSWERED = 4


class Questions:
    """To one process at a time; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Answer]] = {}

    def ask(
        self, say: Callable[[Ask], bool], request: Mapping[str, Any], timeout: float
    ) -> Answer | None:
        """The process's answer; None where it owes too many, or gives none in time."""
        with self._lock:
            if len(self._asked) >= MAX_UNANSWERED:
                return None
            number, future = next(self._numbers), Future[Answer]()
            self._asked[number] = future
        if not say(Ask(number, request)):
            self.heard(Answer(number))
        try:
            return future.result(timeout)
        except TimeoutError:
            return None  # the process still owes it

    def heard(self, answer: Answer) -> None:
        with self._lock:
            future = self._asked.pop(answer.number, None)
        if future is not None:
            future.set_result(answer)

    def forget(self) -> None:
        """The process is gone, with its answers."""
        with self._lock:
            asked, self._asked = self._asked, {}
        for number, future in asked.items():
            future.set_result(Answer(number))
