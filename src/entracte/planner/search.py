"""The best of all plans that fit, or the smallest where none does.

A way to hold the transformer is compared under all places of the other components at once. With
few blocks every way is visited; with many, a grid of them, and then what is around its best.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from entracte.residency import Place, Residency

from .candidates import Family, Way, families, placements
from .costs import Costs
from .footprint import Footprint, Loaned, peaks
from .latency import latency, latency_alone
from .limits import Int64s, Limits
from .model_profile import TRANSFORMER
from .schedule_model import Held

# Latencies are compared in whole milliseconds, so that ties go to the smaller footprint.
TICK = 1e-3

# The numbers of blocks that the grid of ways has on either axis, at most, beside the last.
GRID = 6

Choice = tuple[Way, Mapping[str, Place]]
PlanRank = tuple[int, int, int, int]

# How a way's rank begins: something fits beside it, or nothing does.
FITS, EXCEEDS = 0, 1

# A rank, the smaller the better, and the plan.
Found = tuple[tuple[int, ...], Choice]


def rank(seconds: float, plan: Choice, device: int, host: int) -> PlanRank:
    """The order of plans, best first: time, components from files, memory, host memory."""
    way, places = plan
    from_files = int(way.home == "disk") + sum(place == "disk" for place in places.values())
    return (round(seconds / TICK), from_files, device + host, host)


def same_bits(family: Family) -> bool:
    """Whether a family's ways give the bits that all modes but `dynamic` give."""
    return family.mode != "dynamic"


class Search:
    """All plans for one request that a residency leaves open."""

    def __init__(self, c: Costs, wanted: Residency, limits: Limits) -> None:
        self._c = c
        self._limits = limits
        self._from_files = wanted.places.get(TRANSFORMER) == "disk"
        stored = bool(c.sizes[TRANSFORMER].stored)
        devices = 1 if c.hardware.unified else c.hardware.devices
        self._families = list(families(c.blocks, c.sets, c.adapted, wanted, stored, devices))
        self._planned: dict[Way, tuple[Footprint, Held]] = {}
        self._alone: dict[Way, tuple[float, bool]] = {}
        found = _loaned(c, wanted)
        found.sort(key=lambda each: (self._ticks(each), each.host, each.always))
        self._loaned = found
        self._waits = np.array([each.waits for each in found])

        def column(value: Callable[[Loaned], int]) -> Int64s:
            return np.array([value(each) for each in found], dtype=np.int64)

        self._always, self._host = column(lambda p: p.always), column(lambda p: p.host)
        self._outside, self._inside = column(lambda p: p.outside), column(lambda p: p.inside)

    def best(self, mine: Callable[[Family], bool] = same_bits) -> Choice | None:
        """The plan that ranks first among those of some families; None if none fits."""
        best: Found | None = None

        def ranked(way: Way) -> Found:
            nonlocal best
            found = self._ranked(way, None if best is None else best[0][1])
            if found[0][0] == FITS and (best is None or found[0] < best[0]):
                best = found
            return found

        for family in self._families:
            if mine(family) and not self._needless(family):
                _refined(family, ranked)
        return None if best is None else best[1]

    def smallest(self, mine: Callable[[Family], bool] = same_bits) -> Choice | None:
        """The plan that takes least memory, as the limits compare plans; None if there is none."""
        found = [_refined(family, self._sized) for family in self._families if mine(family)]
        return min(found, key=lambda each: each[0])[1] if found else None

    def _ranked(self, way: Way, bound: int | None) -> Found:
        """A way with the best places of those that fit, or with those that are least in excess.

        bound: the ticks of a plan that is known; the places are not exact where none is faster.
        """
        device, host = self._peaks(way)
        excess = self._limits.excess_of(device, host)
        fits = np.flatnonzero(excess == 0)
        if not len(fits):
            least = int(excess.argmin())
            return (EXCEEDS, int(excess[least])), (way, self._loaned[least].places)
        alone, linked = self._latency_alone(way)
        best: Found | None = None
        if not linked:
            ticks = np.rint((alone + self._waits[fits]) / TICK)
            fits = fits[ticks == ticks.min()]
        for at in fits.tolist():
            seconds = alone + self._loaned[at].waits
            if linked:
                # Waiting for both may overlap, or the one may delay the other.
                least = max(round(alone / TICK), self._ticks(self._loaned[at]))
                if best is not None and bound is not None and least > bound:
                    break
                seconds = latency(self._c, self._held(way)[1], self._loaned[at].places)
            order = rank(seconds, (way, self._loaned[at].places), int(device[at]), int(host[at]))
            if best is None or (FITS, *order) < best[0]:
                best = (FITS, *order), (way, self._loaned[at].places)
                bound = order[0] if bound is None else min(bound, order[0])
        assert best is not None
        return best

    def _sized(self, way: Way) -> Found:
        """The places with which a way takes least memory."""
        keys = self._limits.smallest_first(*self._peaks(way))
        at = int(np.lexsort(keys[::-1])[0])  # whose last key comes first
        return tuple(int(key[at]) for key in keys), (way, self._loaned[at].places)

    def _peaks(self, way: Way) -> tuple[Int64s, Int64s]:
        """The most bytes of the device and of the host, at all places of the other components."""
        others = self._always, self._host, self._outside, self._inside
        return peaks(self._held(way)[0], *others)

    def _held(self, way: Way) -> tuple[Footprint, Held]:
        """What the device manager's plan takes, and what it means for the schedule."""
        if way not in self._planned:
            self._planned[way] = self._c.held(way)
        return self._planned[way]

    def _latency_alone(self, way: Way) -> tuple[float, bool]:
        if way not in self._alone:
            self._alone[way] = latency_alone(self._c, self._held(way)[1])
        return self._alone[way]

    def _ticks(self, loaned: Loaned) -> int:
        """Of a request with the transformer at hand."""
        return round((self._c.computing + loaned.waits) / TICK)

    def _needless(self, family: Family) -> bool:
        """With host memory for everything, streaming from files only is slower."""
        if family.home != "disk" or self._from_files or self._limits.unified:
            return False
        most = max(
            (
                self._held(each.way(each.resident[0], each.merged[0]))[0].host
                for each in self._families
                if each.home == "host"
            ),
            default=0,
        )
        return self._limits.allow(0, most + int(self._host.max(initial=0)))


def _loaned(c: Costs, wanted: Residency) -> list[Loaned]:
    """The other components, at all places that `wanted` leaves open."""
    found = []
    loans = {}
    stages = [stage for stage, _ in c.stages]
    for places in placements(c.others, wanted.places):
        for name, place in places.items():
            if (name, place) not in loans:
                loans[name, place] = c.loan(name, place)
        at_places = {name: loans[name, place] for name, place in places.items()}
        found.append(Loaned.of(stages, c.loops, places, at_places))
    return found


def _refined(family: Family, ranked: Callable[[Way], Found]) -> Found:
    """The best way of a family, by a grid over it and ever shorter steps from the grid's best.

    Memory grows with the blocks that are kept and time falls, so there is one valley to descend
    into; along a limit of memory it is narrow, and found by going up on one axis and down on the
    other.
    """
    m_axis, k_axis = family.resident, family.merged
    step = max(1, len(m_axis) // GRID)
    seen: dict[tuple[int, int], Found] = {}

    def at(i: int, j: int) -> Found:
        if (i, j) not in seen:
            seen[i, j] = ranked(family.way(m_axis[i], k_axis[j]))
        return seen[i, j]

    # Those with most blocks first, which are the fastest.
    for i, j in product(_grid(m_axis, step), _grid(k_axis, step)):
        at(i, j)
    best = min(seen, key=lambda each: seen[each][0])
    while step > 1:
        step = -(-step // 2)
        while True:
            near = [
                (i, j)
                for i, j in _around(best, step)
                if 0 <= i < len(m_axis) and 0 <= j < len(k_axis)
            ]
            closest = min([best, *near], key=lambda each: at(*each)[0])
            if closest == best:
                break
            best = closest
    return seen[best]


def _grid(axis: Sequence[int], step: int) -> list[int]:
    return sorted({*range(0, len(axis), step), len(axis) - 1}, reverse=True)


def _around(place: tuple[int, int], step: int) -> Iterator[tuple[int, int]]:
    for i, j in product((-step, 0, step), repeat=2):
        if i or j:
            yield place[0] + i, place[1] + j
