"""The memory of plans: what their buffers take, and when."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from entracte.pipeline.cache import Cache
from entracte.residency import ComponentPolicy, Place, Plan, WeightSet

from .limits import Bytes
from .schedule_model import Held
from .work import StageWork

# Of a component under some weight sets.
PlanKey = tuple[str, tuple[WeightSet, ...], ComponentPolicy]

# A search for one request looks at some two hundred.
KEPT_PLANS = 2048


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a plan's buffers.

    On the device: always, as long as the plan stands; run, while the component is on loan; phases,
    from the beginning of the first phase to the end of the last; prepare, while weight sets are
    made. host: on the host. for_peers: of the device, what other devices of the group copy from.
    at_peers: what they hold, and this one copies.
    """

    always: int
    run: int
    phases: int
    prepare: int
    host: int
    for_peers: int = 0
    at_peers: int = 0

    @property
    def on_loan(self) -> int:
        """Bytes of the device beside `always` while a component of one weight set is on loan."""
        return self.run + self.prepare

    @classmethod
    def of(cls, plan: Plan) -> "Footprint":
        found = {"always": 0, "run": 0, "phase": 0, "prepare": 0}
        host = 0
        for buffer in plan.buffers:
            if buffer.key.tier == "host":
                host += buffer.nbytes
            else:
                found[buffer.lifetime] += buffer.nbytes
        lifetimes = found["always"], found["run"], found["phase"], found["prepare"]
        return cls(*lifetimes, host, plan.bytes_for_peers, plan.bytes_at_peers)


class Plans:
    """What plans take, by component, weights and policy: for requests that use the same weights.

    Of one model on one machine.
    """

    def __init__(self) -> None:
        self._found: Cache[PlanKey, tuple[Footprint, Held]] = Cache(KEPT_PLANS)

    def get(
        self, key: PlanKey, make: Callable[[str, tuple[WeightSet, ...], ComponentPolicy], Plan]
    ) -> tuple[Footprint, Held]:
        def figures() -> tuple[Footprint, Held]:
            plan = make(*key)
            return Footprint.of(plan), Held.of(plan)

        return self._found.get(key, figures)


@dataclass(frozen=True, slots=True)
class Loan:
    """A component beside the transformer at a place.

    waits: seconds that all stages wait for it, when nothing else uses the link.
    """

    footprint: Footprint
    waits: float


@dataclass(frozen=True, slots=True)
class Loaned:
    """The components beside the transformer, at given places.

    waits: seconds that all stages wait for them. always, host: bytes, for good. outside, inside:
    the most bytes that a stage takes of the device for its loans and activations, before and after
    the phases, and from the first loop to the last.
    """

    places: Mapping[str, Place]
    waits: float
    always: int
    host: int
    outside: int
    inside: int

    @classmethod
    def of(
        cls,
        stages: Sequence[StageWork],
        loops: range,
        places: Mapping[str, Place],
        loans: Mapping[str, Loan],
    ) -> "Loaned":
        """loops: the numbers of the stages from the first loop to the last. loans: the components
        at those places.
        """
        outside = inside = 0
        for number, stage in enumerate(stages):
            on_loan = sum(loans[name].footprint.on_loan for name in stage.loans)
            if number in loops:
                inside = max(inside, stage.activations + on_loan)
            else:
                outside = max(outside, stage.activations + on_loan)
        return cls(
            places,
            sum(each.waits for each in loans.values()),
            sum(each.footprint.always for each in loans.values()),
            sum(each.footprint.host for each in loans.values()),
            outside,
            inside,
        )

    def peaks(self, transformer: Footprint) -> tuple[int, int]:
        """The most bytes of the device and of the host at any time, with the transformer's."""
        device, host = peaks(transformer, self.always, self.host, self.outside, self.inside)
        return int(device), int(host)


def peaks(
    transformer: Footprint, always: Bytes, host: Bytes, outside: Bytes, inside: Bytes
) -> tuple[Bytes, Bytes]:
    """The most bytes of the device and of the host at any time, with other components at places.

    always, host, outside, inside: of the others, as in `Loaned`.
    """
    most = np.maximum(transformer.prepare + transformer.phases, outside)
    most = np.maximum(most, inside + transformer.phases)
    return transformer.always + always + most, transformer.host + host
