"""Idle times of the device by cause, and how a span of time divides into parts.

Copies and merges that overlap with computing cost nothing, so what counts is not how long they took
but how long the compute stream waited for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Cause = Literal["copy", "merge", "read", "launch", "exchange", "host"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """From `begin` to `end`, in seconds, the device waited for the cause.

    component, unit: whose weights it waited for; None for other work.
    """

    begin: float
    end: float
    cause: Cause
    component: str | None = None
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a span of time, in seconds. exchange: between the devices of a group."""

    compute: float = 0.0
    copy: float = 0.0
    merge: float = 0.0
    read: float = 0.0
    launch: float = 0.0
    exchange: float = 0.0
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.compute + self.stall + self.launch + self.exchange + self.host

    @property
    def stall(self) -> float:
        """Time spent waiting for weights."""
        return self.copy + self.merge + self.read

    def exchanging(self, share: float) -> "Parts":
        """The same, with a share of the computing as exchange."""
        moved = share * self.compute
        return replace(self, compute=self.compute - moved, exchange=self.exchange + moved)

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(
            self.compute + other.compute,
            self.copy + other.copy,
            self.merge + other.merge,
            self.read + other.read,
            self.launch + other.launch,
            self.exchange + other.exchange,
            self.host + other.host,
        )


def parts_of(begin: float, end: float, exposures: Iterable[Exposure], of_host: bool) -> Parts:
    """The parts of the time from `begin` to `end`.

    Exposures count as far as they lie within it; the rest is computing, or the host's own work if
    no module runs (`of_host`). Overlapping exposures are counted twice: the parts then exceed the
    whole, and the trace does not close.
    """
    sums: dict[Cause, float] = dict.fromkeys(get_args(Cause), 0.0)
    rest, covered_until = 0.0, begin
    for each in sorted(exposures, key=lambda exposure: exposure.begin):
        first, last = max(each.begin, begin), min(each.end, end)
        if last <= first:
            continue
        sums[each.cause] += last - first
        rest += max(0.0, first - covered_until)
        covered_until = max(covered_until, last)
    rest += max(0.0, end - covered_until)
    if of_host:
        sums["host"] += rest
        rest = 0.0
    return Parts(rest, **sums)
