"""From a backend's marks and times to seconds since a trace began."""

from dataclasses import dataclass

from entracte.residency import Mark


@dataclass(frozen=True, slots=True)
class Moments:
    """zero, end: of the trace, by the backend's clock."""

    zero: float
    end: float

    def of(self, mark: Mark) -> float | None:
        """When a mark was passed; None if not before the trace's end."""
        seconds = mark.passed()
        return None if seconds is None or seconds > self.end else self.since_zero(seconds)

    def at_most(self, mark: Mark) -> float:
        """The same, but the trace's end instead of None."""
        seconds = self.of(mark)
        return self.end - self.zero if seconds is None else seconds

    def since_zero(self, seconds: float) -> float:
        """A time of the backend's clock."""
        return min(max(0.0, seconds - self.zero), self.end - self.zero)
