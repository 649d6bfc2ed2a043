"""The best plan of all: exact, because what it skips cannot be better than what it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter

import numpy as np

from entracte.residency import Place, Residency

from .candidates import Way, placements, ways
from .cost_model import Costs, Loaned, latency, latency_alone
from .footprint import Footprint
from .limits import Limits
from .model_profile import TRANSFORMER

# Latencies are compared in whole milliseconds, so that ties go to the smaller footprint.
TICK = 1e-3

Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]
Choice = tuple[Way, Mapping[str, Place]]
PlanRank = tuple[int, int, int, int]


def rank(seconds: float, plan: Choice, device: int, host: int) -> PlanRank:
    """The order of plans, best first: time, components from files, memory, host memory."""
    way, places = plan
    from_files = int(way.home == "disk") + sum(place == "disk" for place in places.values())
    return (round(seconds / TICK), from_files, device + host, host)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A way to hold the transformer, and the seconds of a request with all else on the device.

    linked: whether other components' weights wait for the transformer's.
    """

    seconds: float
    linked: bool
    way: Way
    footprint: Footprint


class Search:
    """All plans for one request that some wishes leave open and that may fit some limits."""

    def __init__(self, c: Costs, wanted: Residency, limits: Limits) -> None:
        self._c = c
        self._limits = limits
        found = [Loaned.of(c, each) for each in placements(c.others, wanted.places)]
        self._loaned = found
        self._placed = sorted(
            (
                (round((c.computing + each.waits) / TICK), each)
                for each in found
                if limits.allow(each.always, each.host)
            ),
            key=lambda each: (each[0], each[1].host, each[1].always),
        )
        self._most_host = max((each.host for each in found), default=0)
        self._wanted = wanted

    def best(
        self, mine: Callable[[Way], bool] = lambda _: True, dynamic: bool = False
    ) -> Choice | None:
        """The plan that ranks first among those with certain ways; None if none fits."""
        choices = self._choices(mine, dynamic)
        table = _Table([choice.footprint for choice in choices])
        best: tuple[PlanRank, Choice] | None = None
        for ticks, loaned in self._placed:
            if best is not None and ticks > best[0][0]:
                break
            for number in table.fitting(loaned, self._limits):
                choice = choices[number]
                if best is not None and round(choice.seconds / TICK) > best[0][0]:
                    break
                seconds = choice.seconds + loaned.waits
                if choice.linked:
                    # Waiting for both may overlap, or the one may delay the other.
                    seconds = latency(self._c, choice.way, loaned.places)
                device, host = loaned.peaks(choice.footprint)
                plan = choice.way, loaned.places
                key = rank(seconds, plan, device, host)
                if best is None or key < best[0]:
                    best = (key, plan)
        return None if best is None else best[1]

    def smallest(self, mine: Callable[[Way], bool], dynamic: bool = False) -> Choice | None:
        """The plan that takes least memory, as the limits compare plans; None if there is none."""
        offered = [way for way in self._ways(dynamic) if mine(way)]
        if not offered:
            return None
        table = _Table([self._c.transformer(way) for way in offered])
        found: list[tuple[tuple[int, ...], Choice]] = []
        for loaned in self._loaned:
            keys = self._limits.smallest_first(*table.peaks(loaned))
            number = int(np.lexsort(keys[::-1])[0])  # whose last key comes first
            order = tuple(int(key[number]) for key in keys)
            found.append((order, (offered[number], loaned.places)))
        return min(found, key=itemgetter(0))[1]

    def _ways(self, dynamic: bool) -> list[Way]:
        c = self._c
        blocks = c.weights[TRANSFORMER].blocks
        return list(ways(blocks, c.sets, c.adapted > 0, self._wanted, dynamic))

    def _choices(self, mine: Callable[[Way], bool], dynamic: bool) -> list[_Choice]:
        found = []
        offered = [(way, self._c.transformer(way)) for way in self._ways(dynamic) if mine(way)]
        most = max((size.host for way, size in offered if way.home == "host"), default=0)
        # With host memory for all, streaming from files only is slower; no plan needs it.
        plenty = self._limits.allow(0, most + self._most_host) and not self._limits.unified
        for way, footprint in offered:
            if way.home == "disk" and plenty and self._wanted.places.get(TRANSFORMER) != "disk":
                continue
            if self._limits.allow(footprint.always, footprint.host):
                found.append(_Choice(*latency_alone(self._c, way), way, footprint))
        return sorted(found, key=attrgetter("seconds"))


class _Table:
    """Footprints of the transformer, in columns."""

    def __init__(self, footprints: Sequence[Footprint]) -> None:
        def column(name: str) -> Int64s:
            return np.array([attrgetter(name)(each) for each in footprints], dtype=np.int64)

        self._always, self._phases = column("always"), column("phases")
        self._prepare, self._host = column("prepare"), column("host")

    def peaks(self, loaned: Loaned) -> tuple[Int64s, Int64s]:
        """The most bytes of the device and of the host, beside the other components."""
        most = np.maximum(self._prepare + self._phases, loaned.outside)
        device = loaned.always + self._always + np.maximum(most, loaned.inside + self._phases)
        return device, loaned.host + self._host

    def fitting(self, loaned: Loaned, limits: Limits) -> list[int]:
        """The numbers of those that fit beside the other components, in order."""
        device, host = self.peaks(loaned)
        fits = (device <= limits.device) & (host <= limits.host)
        if limits.unified:
            fits = device + host <= min(limits.device, limits.host)
        elif limits.pinned is not None:
            fits &= host <= limits.pinned
        numbers: list[int] = np.flatnonzero(fits).tolist()
        return numbers
