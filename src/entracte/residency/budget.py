"""Peak memory of a plan of all components, and smaller plans if it does not fit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from entracte.errors import BudgetError, ResidencyError
from entracte.units import size

from .plan import Plan
from .policy import Auto, Mode, Place, Residency


@dataclass(frozen=True, slots=True)
class ConcurrentUse:
    """Components that are on loan at once. in_phases: also during the adapted one's phases."""

    components: frozenset[str]
    in_phases: bool = False


@dataclass(frozen=True, slots=True)
class ManagerPlan:
    """The plans of all components for one request.

    adapted: the component with phases. wanted: the residency that was planned for.
    """

    components: Mapping[str, Plan]
    concurrent_uses: tuple[ConcurrentUse, ...]
    adapted: str
    wanted: Residency

    @property
    def device_bytes(self) -> int:
        """Peak device memory of weights."""
        plans = self.components.values()
        always = sum(plan.nbytes("device", "always") for plan in plans)
        phases = sum(plan.nbytes("device", "phase") for plan in plans)
        preparing = self.components[self.adapted].nbytes("device", "prepare")
        # While sets are prepared nothing is on loan, but a phase's buffers may be in use.
        most = max(preparing + phases, phases)
        for use in self.concurrent_uses:
            loans = sum(
                self.components[name].nbytes("device", "run", "prepare") for name in use.components
            )
            most = max(most, loans + (phases if use.in_phases else 0))
        return always + most

    @property
    def host_bytes(self) -> int:
        """Peak host memory of weights, without what loading takes briefly."""
        plans = self.components.values()
        return sum(plan.nbytes("host", "always", "run") for plan in plans)


def check_budgets(
    plan: ManagerPlan, wanted: Residency, replan: Callable[[Residency], ManagerPlan]
) -> None:
    """Raise BudgetError if a plan does not fit, naming the nearest that does."""
    reason, missing = _excess(plan, wanted)
    if not missing:
        return
    smallest: tuple[int, Residency, ManagerPlan] | None = None
    for other in _smaller(plan, wanted):
        try:
            tried = replan(other)
        except ResidencyError:
            continue
        if not _excess(tried, wanted)[1]:
            raise BudgetError(reason, missing, _arguments(other))
        total = (0 if wanted.device_memory is None else tried.device_bytes) + (
            0 if wanted.host_memory is None else tried.host_bytes
        )
        if smallest is None or total < smallest[0]:
            smallest = (total, other, tried)
    if smallest is None:
        raise BudgetError(reason, missing)
    _, least, takes = smallest
    needs = (
        f"{size(takes.device_bytes, 2)} of the device and {size(takes.host_bytes, 2)} of the host"
    )
    raise BudgetError(reason, missing, _arguments(least), needs)


def _excess(plan: ManagerPlan, wanted: Residency) -> tuple[str, dict[str, int]]:
    """What does not fit, in words, and the missing bytes; both empty if everything fits."""
    words, missing = [], {}
    for what, needed, limit in (
        ("the device", plan.device_bytes, wanted.device_memory),
        ("host memory", plan.host_bytes, wanted.host_memory),
    ):
        if limit is not None and needed > limit:
            missing[what] = needed - limit
            words.append(
                f"the weights need {size(needed, 2)} of {what}, {size(needed - limit, 2)} more "
                f"than the {size(limit, 2)} allowed"
            )
    return " and ".join(words), missing


def _smaller(plan: ManagerPlan, wanted: Residency) -> Iterator[Residency]:
    """Wishes that take less memory, the nearest first."""
    blocks = plan.components[plan.adapted].blocks
    dials: list[int | None] = [*range(blocks, -1, -max(1, blocks // 8))] if blocks else [None]
    others = {name: each for name, each in plan.components.items() if name != plan.adapted}
    away: dict[str, Place] = {name: "disk" for name, each in others.items() if each.policy.stays}
    streamed: dict[str, Place] = {name: "streamed" for name, each in others.items() if each.blocks}
    homes: tuple[dict[str, Place], ...] = ({}, {plan.adapted: "disk"})
    modes: list[Mode | Auto] = [wanted.mode, "snapshot", "fused", "original"]
    if wanted.mode == "resident":
        modes = ["fused", "snapshot", "original"]
    for places in (
        dict(wanted.places),
        {**away, **wanted.places},
        {**away, **streamed, **wanted.places},
    ):
        places.pop(plan.adapted, None)
        for home in homes:
            for mode in dict.fromkeys(modes):
                for m in dials:
                    yield replace(
                        wanted,
                        mode=mode,
                        snapshot_policy="low-vram",
                        resident_blocks=m,
                        merged_blocks=0 if mode == "fused" else None,
                        places={**places, **home},
                    )


def _arguments(wanted: Residency) -> dict[str, Any]:
    """The arguments of a `Residency`."""
    found: dict[str, Any] = {"mode": wanted.mode}
    if wanted.mode == "snapshot":
        found["snapshot_policy"] = wanted.snapshot_policy
    if wanted.resident_blocks is not None:
        found["resident_blocks"] = wanted.resident_blocks
    if wanted.places:
        found["places"] = dict(wanted.places)
    return found
