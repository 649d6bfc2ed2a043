"""Simulated time: engines that do one thing at a time, and their log."""

from bisect import bisect_right
from dataclasses import dataclass

from entracte.residency.backends.protocol import Direction

from .ordering import Participant


@dataclass(frozen=True, slots=True)
class Span:
    """What a participant did from `start` to `end`, in simulated seconds."""

    stream: str
    what: str
    start: float
    end: float


class SimulatedEngine:
    """Does one thing at a time. Work that finds it taken half-way goes on when it is free again.

    Work is placed in the order in which it is enqueued, but may be ready earlier than work that was
    placed before it: it then takes the idle time that it finds.
    """

    def __init__(self) -> None:
        self._starts: list[float] = []  # of busy periods, in order
        self._ends: list[float] = []

    def occupy(self, ready: float, seconds: float) -> tuple[float, float]:
        """Take idle seconds from `ready` on; returns when they begin and end."""
        first = last = bisect_right(self._ends, ready)
        start, now, left = None, ready, seconds
        while start is None or left > 0:
            if last < len(self._starts) and self._starts[last] <= now:
                now = max(now, self._ends[last])
                last += 1
                continue
            start = now if start is None else start
            idle = self._starts[last] - now if last < len(self._starts) else left
            used = min(idle, left)
            now += used
            left -= used
        if seconds > 0:
            self._mark(first, last, start, now)
        return start, now

    def _mark(self, first: int, last: int, start: float, end: float) -> None:
        """Make one busy period of those from `first` to before `last` and of the new one."""
        if first > 0 and self._ends[first - 1] == start:
            first -= 1
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]


class Timing:
    """The engines of the device: one copies in, one out, one for other devices that copy from it,
    and one processor does all the rest.
    """

    def __init__(self, keep_log: bool) -> None:
        self.log: list[Span] = []
        self.compute_seconds = 0.0
        self.stall_seconds = 0.0
        self._keep_log = keep_log
        self._engines: dict[Direction, SimulatedEngine] = {
            "in": SimulatedEngine(),
            "out": SimulatedEngine(),
            "within": SimulatedEngine(),
            "peer": SimulatedEngine(),
        }
        self._worked_until: float | None = None

    def occupy(self, who: Participant, engine: Direction, seconds: float, what: str) -> Span:
        """Simulate work of a stream, as soon as the stream and the engine are free."""
        start, end = self._engines[engine].occupy(who.seconds, seconds)
        who.seconds = end
        return self._note(Span(who.name, what, start, end))

    def work(self, who: Participant, seconds: float) -> None:
        """Simulate a module's run; the idle time since the last one is a stall."""
        span = self.occupy(who, "within", seconds, "work")
        since = span.start if self._worked_until is None else self._worked_until
        self.compute_seconds += seconds
        self.stall_seconds += span.end - since - seconds
        self._worked_until = span.end

    def alone(self, who: Participant, seconds: float, what: str) -> None:
        """Simulate work that needs no engine."""
        start = who.seconds
        who.seconds += seconds
        self._note(Span(who.name, what, start, who.seconds))

    def _note(self, span: Span) -> Span:
        if self._keep_log:
            self.log.append(span)
        return span
