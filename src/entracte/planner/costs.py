"""What a request costs on a machine, whatever the plan: stages, times, and sizes of weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from entracte.machine.hardware import Hardware
from entracte.models.kernels import graphs_pay
from entracte.parallel import Layout, Parallel
from entracte.residency import (
    BASE,
    ComponentPolicy,
    Place,
    Plan,
    RankShare,
    Residency,
    Sizes,
    WeightPhase,
    WeightSet,
    distinct,
    make_plan,
    resolve_policy,
)

from .calibration import BESIDE_COPIES, Calibration, sustained
from .candidates import Way
from .footprint import Footprint, Loan, PlanKey, Plans
from .model_profile import TRANSFORMER, ModelFigures
from .schedule_model import CopiedBytes, Held, Sweeps, expand_seconds, loan_wait, merge_seconds
from .sharing import exchanges_captured, share_out
from .transformer_work import TransformerMeter
from .work import StageWork, stage_work, with_graphs
from .workload import Workload

ANY = Residency()  # without limits


@dataclass(frozen=True, slots=True)
class Lent:
    """The weights that a component beside the transformer is used with, if not its own.

    factors: bytes of its adapters, by name and unit.
    """

    weights: WeightSet
    factors: Mapping[str, tuple[int, ...]]


# Every component is used with its own weights.
OWN: Mapping[str, Lent] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Costs:
    """Everything that is the same for all plans of one request on one machine.

    stages: with the seconds that each computes. sweeps: the loops among them. sizes: of all
    components. phases: the transformer's. lent: the other components' weights.
    copied: what each component sends over the link.
    layouts: of every phase, on several devices. exchanging: by stage, how many of its seconds it
        exchanges tensors with other devices.
    graphs: bytes that graphs take on a device that is large enough for them, if this one is not.
    plans: those that are known already.
    """

    stages: tuple[tuple[StageWork, float], ...]
    sweeps: tuple[Sweeps, ...]
    sizes: Mapping[str, Sizes]
    phases: tuple[WeightPhase, ...]
    hardware: Hardware
    lent: Mapping[str, Lent] = field(default_factory=dict)
    layouts: tuple[Layout, ...] = ()
    exchanging: tuple[float, ...] = ()
    graphs: int = 0
    plans: Plans = field(default_factory=Plans)
    copied: Mapping[str, CopiedBytes] = field(init=False)

    def __post_init__(self) -> None:
        copied = {name: CopiedBytes.of(sizes) for name, sizes in self.sizes.items()}
        object.__setattr__(self, "copied", copied)

    def graphs_on(self, device_memory: int) -> int:
        """Bytes that graphs take on another device beside what is counted on this one."""
        nbytes = sum(self.sizes[TRANSFORMER].units)
        return self.graphs if graphs_pay(nbytes, device_memory) else 0

    @property
    def sets(self) -> int:
        """How many weight sets the transformer has."""
        return len(distinct(self.phases))

    @property
    def adapted(self) -> bool:
        """Whether one of them has adapters."""
        return any(phase.weights.adapters for phase in self.phases)

    @property
    def blocks(self) -> int:
        return self.sizes[TRANSFORMER].blocks

    @property
    def others(self) -> dict[str, int]:
        """The components beside the transformer, and how many blocks each has."""
        return {name: each.blocks for name, each in self.sizes.items() if name != TRANSFORMER}

    @property
    def computing(self) -> float:
        """Seconds that a request takes when every weight is at hand."""
        return sum(seconds for _, seconds in self.stages)

    @property
    def loops(self) -> range:
        """The numbers of the stages from the first loop to the last."""
        found = [at for at, (stage, _) in enumerate(self.stages) if stage.phase is not None]
        return range(found[0], found[-1] + 1)

    def plan(self, way: Way) -> Plan:
        """The plan that the device manager will make for the transformer."""
        return self._make_plan(*self._transformer(way))

    def held(self, way: Way) -> tuple[Footprint, Held]:
        """What that plan takes, and what it means for the schedule."""
        return self.plans.get(self._transformer(way), self._make_plan)

    def plan_of_other(self, name: str, place: Place) -> Plan:
        """The plan that it will make for another component."""
        return self._make_plan(*self._other(name, place))

    def loan(self, name: str, place: Place) -> Loan:
        """Another component at a place."""
        waits = sum(
            loan_wait(self.copied[name], place, seconds / len(stage.loans), self.hardware)
            for stage, seconds in self.stages
            if name in stage.loans
        )
        footprint, _ = self.plans.get(self._other(name, place), self._make_plan)
        return Loan(footprint, waits)

    def _transformer(self, way: Way) -> PlanKey:
        policy = resolve_policy(TRANSFORMER, True, way.residency({}, ANY))
        return TRANSFORMER, distinct(self.phases), policy

    def _other(self, name: str, place: Place) -> PlanKey:
        weights = self.lent[name].weights if name in self.lent else BASE
        return name, (weights,), resolve_policy(name, False, Residency(places={name: place}))

    def _make_plan(self, name: str, sets: tuple[WeightSet, ...], policy: ComponentPolicy) -> Plan:
        # The first rank of a group has most, where its share of the blocks does not divide.
        share = RankShare(0, self.hardware.devices)
        phases = tuple(WeightPhase(weights) for weights in sets)
        return make_plan(name, self.sizes[name], phases, policy, self.hardware.unified, share)


def costs(
    model: ModelFigures,
    load: Workload,
    phases: Sequence[WeightPhase],
    hardware: Hardware,
    calibration: Calibration,
    transformer: TransformerMeter,
    lent: Mapping[str, Lent] = OWN,
    graphs: bool = True,
    parallel: Parallel = "auto",
    plans: Plans | None = None,
) -> Costs:
    """Prepare predictions. `phases` are the transformer's, and name adapters of the model.

    graphs: blocks may be run from captured graphs, which then are where they pay.
    parallel: how the work may be shared out, where there are several devices.
    plans: of the model on the machine, from earlier requests.
    """
    hardware = sustained(hardware)
    if_larger = graphs and not hardware.unified
    graphs = graphs and from_graphs(model, hardware)
    layouts = share_out(load, transformer, hardware, calibration, parallel, graphs)
    work = stage_work(model, load, transformer, layouts, exchanges_captured(hardware))
    captured = with_graphs(work)
    kept = captured[0].activations - work[0].activations
    if graphs:
        work = captured
    stages = tuple(
        (calibration.corrected_memory(stage), calibration.seconds(stage, hardware))
        for stage in work
    )
    sets = distinct(tuple(phases))
    factors = {name: each.factors for name, each in lent.items()}
    factors[TRANSFORMER] = {
        each.name: model.adapters[each.name].nbytes for w in sets for each in w.adapters
    }
    sizes = {
        name: Sizes(
            units,
            factors.get(name, {}),
            model.stored.get(name, {}),
            model.scratch if name == TRANSFORMER else 0,
        )
        for name, units in model.units.items()
    }
    units = model.units[TRANSFORMER]
    blocks = sizes[TRANSFORMER].blocks
    stored = sizes[TRANSFORMER].stored
    expanding = (
        expand_seconds(stored[u], units[u], hardware) for u in range(blocks) if u in stored
    )
    expand = sum(expanding) / max(1, blocks)
    sweeps = []
    for stage, seconds in stages:
        if stage.phase is None:
            continue
        phase = phases[stage.phase]
        used = [model.adapters[each.name] for each in phase.weights.adapters]
        merge, outside = (
            merge_seconds(
                units[unit],
                sum(each.nbytes[unit] for each in used),
                sum(each.flops[unit] for each in used),
                hardware,
            )
            if used
            else 0.0
            for unit in (0, -1)
        )
        block = seconds / max(1, phase.sweeps * blocks)
        number = sets.index(phase.weights)
        beside = 0.0 if hardware.unified else BESIDE_COPIES
        sweeps.append(Sweeps(phase.sweeps, block, number, merge, outside, expand, beside))
    exchanging = tuple(calibration.exchanging(stage, hardware) for stage in work)
    return Costs(
        stages=stages,
        sweeps=tuple(sweeps),
        sizes=sizes,
        phases=tuple(phases),
        hardware=hardware,
        lent=lent,
        layouts=layouts,
        exchanging=exchanging,
        graphs=kept if if_larger and not graphs else 0,
        plans=Plans() if plans is None else plans,
    )


def from_graphs(model: ModelFigures, hardware: Hardware) -> bool:
    """Whether a machine runs the transformer's blocks from captured graphs, if it may."""
    nbytes = sum(model.units[TRANSFORMER])
    return not hardware.unified and graphs_pay(nbytes, hardware.device_memory)
