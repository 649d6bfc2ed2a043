"""Times in which nothing computed, and what a stretch of time consists of.

Copies and merges that go on beside computing cost nothing, so what is counted is never their own
length but for how long the compute stream was kept waiting for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Cause = Literal["copy", "merge", "read", "host"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """From `begin` to `end`, in seconds, nothing computed: everything waited for the cause.

    component, unit: whose weights were waited for; None for other work.
    """

    begin: float
    end: float
    cause: Cause
    component: str | None = None
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a stretch of time consists of, in seconds."""

    compute: float = 0.0
    copy: float = 0.0
    merge: float = 0.0
    read: float = 0.0
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.compute + self.stall + self.host

    @property
    def stall(self) -> float:
        """How long weights were waited for."""
        return self.copy + self.merge + self.read

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(
            self.compute + other.compute,
            self.copy + other.copy,
            self.merge + other.merge,
            self.read + other.read,
            self.host + other.host,
        )


def parts_of(begin: float, end: float, exposures: Iterable[Exposure], of_host: bool) -> Parts:
    """What the time from `begin` to `end` consists of.

    Exposures count as far as they lie within; what none of them covers is computing, or the host's
    own work in a stretch in which nothing computes. Exposures that overlap are counted twice: the
    parts are then more than the whole, and the trace does not close.
    """
    sums: dict[Cause, float] = {"copy": 0.0, "merge": 0.0, "read": 0.0, "host": 0.0}
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
    return Parts(rest, sums["copy"], sums["merge"], sums["read"], sums["host"])
