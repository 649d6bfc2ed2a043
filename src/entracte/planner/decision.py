"""A decision: the plan that was chosen, and why each other mode's best one lost."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from entracte.errors import BudgetError
from entracte.parallel import Layout
from entracte.residency import AUTO, Mode, Residency, SnapshotPolicy
from entracte.units import duration, size

from .candidates import Family, Way
from .costs import Costs
from .limits import NOTHING, Limits
from .model_profile import TRANSFORMER
from .prediction import Prediction, predict
from .search import TICK, Choice, PlanRank, Search, rank

MODES: tuple[tuple[Mode, SnapshotPolicy], ...] = (
    ("resident", "low-vram"),
    ("fused", "low-vram"),
    ("snapshot", "aggressive"),
    ("snapshot", "low-vram"),
    ("original", "low-vram"),
    ("dynamic", "low-vram"),
)


@dataclass(frozen=True, slots=True)
class Option:
    """One mode's best plan, or its smallest if none fits. reason: why it was chosen, or not."""

    prediction: Prediction
    fits: bool
    reason: str

    @property
    def name(self) -> str:
        way = self.prediction.way
        return f"{way.mode} {way.policy}" if way.mode == "snapshot" else way.mode


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen, and the alternatives, in the order of `MODES`.

    layouts: how each phase is shared out, where there are several devices.
    """

    chosen: Option
    alternatives: tuple[Option, ...]
    residency: Residency
    limits: Limits
    layouts: tuple[Layout, ...] = ()


def decide(c: Costs, wanted: Residency, limits: Limits, strict: bool = True) -> Decision:
    """The best plan for a request; raises BudgetError, naming the nearest one, where none fits.

    A named mode is taken exactly as given; the alternatives are those of `auto`. strict: raise if
    it does not fit, instead of noting that in the reason.
    """
    opened = replace(wanted, mode=AUTO) if wanted.mode != AUTO else wanted
    search = Search(c, opened, limits)
    found = [_option(c, search, *each) for each in MODES]
    options = [each for each in found if each is not None]
    if wanted.mode == AUTO:
        fitting = [each for each in options if each.fits and each.name != "dynamic"]
        if not fitting:
            raise _no_plan("no plan fits", c, options, limits, ". A smaller video takes less")
        best = _best(fitting).prediction
        plan: Choice = best.way, best.places
    else:
        plan = named_plan(c, wanted)
        prediction = predict(c, *plan)
        missing = limits.excess(prediction.peak_device_bytes, prediction.peak_host_bytes)
        if missing and strict:
            fitting = [each for each in options if each.fits]
            words = f"{describe(prediction)} does not fit: {_over(missing)}"
            if not fitting:
                raise _no_plan(words, c, options, limits)
            raise BudgetError(words, missing, arguments(_best(fitting).prediction))
    chosen = predict(c, *plan)
    missing = limits.excess(chosen.peak_device_bytes, chosen.peak_host_bytes)
    reason = _why(chosen, options, wanted)
    if missing:
        reason += f"; it may not fit: {_over(missing)}"
    others = tuple(
        replace(each, reason=_why_not(each, chosen, limits))
        for each in options
        if (each.prediction.way.mode, each.prediction.way.policy)
        != (chosen.way.mode, chosen.way.policy)
    )
    residency = chosen.way.residency(chosen.places, wanted)
    return Decision(Option(chosen, not missing, reason), others, residency, limits, c.layouts)


def arguments(prediction: Prediction) -> dict[str, Any]:
    """The arguments of a `Residency` that asks for this plan."""
    way = prediction.way
    found: dict[str, Any] = {"mode": way.mode}
    if way.mode == "snapshot":
        found["snapshot_policy"] = way.policy
    if way.mode != "resident" and way.home != "peer":
        found["resident_blocks"] = way.resident
    if way.mode == "fused":
        found["merged_blocks"] = way.merged
    places = {name: place for name, place in prediction.places.items() if place != "resident"}
    if way.home != "host":
        places[TRANSFORMER] = way.home
    return found | ({"places": places} if places else {})


def describe(prediction: Prediction) -> str:
    """A plan in a few words, such as "fused, m = 29, k = 15"."""
    way = prediction.way
    words = f"{way.mode} {way.policy}" if way.mode == "snapshot" else way.mode
    if way.home == "peer":
        words += " among peers"
    elif way.mode != "resident":
        words += f", m = {way.resident}"
    return words + (f", k = {way.merged}" if way.mode == "fused" else "")


def _option(c: Costs, search: Search, mode: Mode, policy: SnapshotPolicy) -> Option | None:
    def mine(family: Family) -> bool:
        return (family.mode, family.policy) == (mode, policy)

    best = search.best(mine)
    plan = best or search.smallest(mine)
    return None if plan is None else Option(predict(c, *plan), best is not None, "")


def named_plan(c: Costs, wanted: Residency) -> Choice:
    """The plan that a named mode asks for."""
    places = {name: wanted.places.get(name, "resident") for name in c.others}
    return Way.of(wanted, c.blocks), places


def _best(options: list[Option]) -> Option:
    def key(option: Option) -> tuple[bool, PlanRank]:
        p = option.prediction
        order = rank(p.latency_s, (p.way, p.places), p.peak_device_bytes, p.peak_host_bytes)
        return (p.way.mode == "dynamic", order)

    return min(options, key=key)


def _why(chosen: Prediction, options: list[Option], wanted: Residency) -> str:
    waiting = chosen.stall_s + chosen.switch_s
    times = f"{duration(chosen.latency_s)}, of which {duration(waiting)} wait for weights"
    if wanted.mode != AUTO:
        return f"asked for: {times}"
    fitting = sum(each.fits for each in options)
    return f"the fastest of what fits ({fitting} of {len(options)} modes do): {times}"


def _why_not(option: Option, chosen: Prediction, limits: Limits) -> str:
    p = option.prediction
    if not option.fits:
        return f"does not fit: {_over(limits.excess(p.peak_device_bytes, p.peak_host_bytes))}"
    slower = p.latency_s - chosen.latency_s
    if p.way.mode == "dynamic":
        pace = f"{duration(abs(slower))} {'slower' if slower >= 0 else 'faster'}"
        return f"is not bit-identical, and meant for quantised weights; {pace}"
    if slower >= TICK / 2:
        waits = p.stall_s + p.switch_s - chosen.stall_s - chosen.switch_s
        return f"{duration(slower)} slower: it waits {duration(max(0.0, waits))} longer for weights"
    if p.way.home == "disk" and chosen.way.home == "host":
        return "as fast, but reads files at every step"
    more = p.peak_device_bytes + p.peak_host_bytes
    more -= chosen.peak_device_bytes + chosen.peak_host_bytes
    return (
        f"as fast, but takes {size(more)} more memory" if more > 0 else "as good, but not asked for"
    )


def _no_plan(
    reason: str, c: Costs, options: Iterable[Option], limits: Limits, advice: str = ""
) -> BudgetError:
    """An error that names the least demanding plan, and the memory that it needs."""
    found = smallest(options, limits)
    peaks = found.peak_device_bytes, found.peak_host_bytes
    larger, _ = limits.machine_for(*peaks)
    peaks = peaks[0] + c.graphs_on(larger), peaks[1]
    missing = limits.excess(*peaks)
    device, host = map(_rounded_up, limits.machine_for(*peaks))
    needs = f"{device} of memory"
    if not limits.unified:
        needs = f"{device} of device memory and {host} of host memory"
    if (limits.device_reserve, limits.host_reserve) != (NOTHING, NOTHING):
        needs += ", with what is left free"
    return BudgetError(reason, missing, arguments(found), f"{needs}: {_over(missing)}{advice}")


def smallest(options: Iterable[Option], limits: Limits) -> Prediction:
    """The plan that needs least memory, of the modes that give the same bits."""

    def order(p: Prediction) -> tuple[int, ...]:
        return tuple(map(int, limits.smallest_first(p.peak_device_bytes, p.peak_host_bytes)))

    return min((each.prediction for each in options if each.name != "dynamic"), key=order)


def _rounded_up(nbytes: int) -> str:
    """As `size`, but rounded up, so that this much is enough."""
    unit = 10 ** max(3, min(9, 3 * ((len(str(nbytes)) - 1) // 3)))
    return size(math.ceil(nbytes * 10 / unit) * unit // 10)


def _over(missing: Mapping[str, int]) -> str:
    return " and ".join(f"{size(nbytes)} more than {what} has" for what, nbytes in missing.items())
