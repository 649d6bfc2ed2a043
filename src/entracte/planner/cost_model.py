"""The cost model: what a request takes, in time and memory, under a plan on a machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from entracte.machine.hardware import Hardware
from entracte.models.kernels import graphs_pay
from entracte.parallel import Layout, Parallel
from entracte.residency import (
    BASE,
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
from .limits import Bytes
from .model_profile import TRANSFORMER, ModelFigures
from .prediction import Prediction, StagePrediction
from .schedule_model import (
    BusyUntil,
    CopiedBytes,
    Held,
    Loops,
    Sweeps,
    expand_seconds,
    loan_wait,
    merge_seconds,
)
from .sharing import exchanges_captured, share_out
from .transformer_work import TransformerMeter
from .work import StageWork, stage_work, with_graphs
from .workload import Workload

ANY = Residency()  # without limits


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a plan's buffers.

    On the device: always, as long as the plan stands; run, while the component is on loan; phases,
    from the beginning of the first phase to the end of the last; prepare, while weight sets are
    made. host: on the host.
    """

    always: int
    run: int
    phases: int
    prepare: int
    host: int

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
        return cls(found["always"], found["run"], found["phase"], found["prepare"], host)


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
class Loan:
    """A component beside the transformer at a place.

    waits: seconds that all stages wait for it, when nothing else uses the link.
    """

    footprint: Footprint
    waits: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Everything that is the same for all plans of one request on one machine.

    stages: with the seconds that each computes. sweeps: the loops among them. sizes: of all
    components. phases: the transformer's. lent: the other components' weights.
    copied: what each component sends over the link.
    layouts: of every phase, on several devices. exchanging: by stage, how many of its seconds it
        exchanges tensors with other devices.
    graphs: bytes that graphs take on a device that is large enough for them, if this one is not.
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
        return self._plan(TRANSFORMER, self.phases, way.residency({}, ANY))

    def plan_of_other(self, name: str, place: Place) -> Plan:
        """The plan that it will make for another component."""
        phases = (WeightPhase(self.lent[name].weights if name in self.lent else BASE),)
        return self._plan(name, phases, Residency(places={name: place}))

    def loan(self, name: str, place: Place) -> "Loan":
        """Another component at a place."""
        waits = sum(
            loan_wait(self.copied[name], place, seconds / len(stage.loans), self.hardware)
            for stage, seconds in self.stages
            if name in stage.loans
        )
        return Loan(Footprint.of(self.plan_of_other(name, place)), waits)

    def _plan(self, name: str, phases: tuple[WeightPhase, ...], wanted: Residency) -> Plan:
        policy = resolve_policy(name, name == TRANSFORMER, wanted)
        # The first rank of a group has most, where its share of the blocks does not divide.
        share = RankShare(0, self.hardware.devices)
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
) -> Costs:
    """Prepare predictions. `phases` are the transformer's, and name adapters of the model.

    graphs: blocks may be run from captured graphs, which then are where they pay.
    parallel: how the work may be shared out, where there are several devices.
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
        name: Sizes(units, factors.get(name, {}), model.stored.get(name, {}))
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
    )


def from_graphs(model: ModelFigures, hardware: Hardware) -> bool:
    """Whether a machine runs the transformer's blocks from captured graphs, if it may."""
    nbytes = sum(model.units[TRANSFORMER])
    return not hardware.unified and graphs_pay(nbytes, hardware.device_memory)


def waits(c: Costs, held: Held, places: Mapping[str, Place]) -> tuple[list[float], float]:
    """What every stage of a request waits for weights, and its switches together.

    The second of two requests, one right after the other: weights may be under way when it begins.
    """
    loops = Loops(c.copied[TRANSFORMER], held, c.sweeps, c.hardware)
    clock = BusyUntil()
    found: list[float] = []
    switch = 0.0
    for _ in range(2):
        found = []
        clock = loops.begin(clock)
        for stage, seconds in c.stages:
            began = clock.now
            for name in stage.loans:
                place = places.get(name, "resident")
                if place != "resident":
                    w, each = c.copied[name], seconds / len(stage.loans)
                    wait = loan_wait(w, place, each, c.hardware)
                    clock = clock.brought(w.stored / c.hardware.rates.h2d, wait)
            if stage.phase is None:
                clock = clock.computed(seconds)
            else:
                clock = loops.run(stage.phase, clock)
            found.append(max(0.0, clock.now - began - seconds))
        switch = loops.switch
    return found, switch


def latency(c: Costs, held: Held, places: Mapping[str, Place]) -> float:
    """Seconds of a whole request."""
    found, _ = waits(c, held, places)
    return sum(found) + c.computing


def latency_alone(c: Costs, held: Held) -> tuple[float, bool]:
    """Seconds of a request with all other components on the device.

    Also whether other components' weights wait for the transformer's; otherwise waits add up.
    """
    loops = Loops(c.copied[TRANSFORMER], held, c.sweeps, c.hardware)
    if loops.linked:
        return latency(c, held, {}), True
    clock = BusyUntil()
    for number in range(len(c.sweeps)):
        clock = loops.run(number, clock)
    between = sum(seconds for stage, seconds in c.stages if stage.phase is None)
    return clock.now + between, False


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
    def of(cls, c: Costs, places: Mapping[str, Place], loans: Mapping[str, Loan]) -> "Loaned":
        """loans: the components at those places."""
        loops = c.loops
        outside = inside = 0
        for number, (stage, _) in enumerate(c.stages):
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


def predict(c: Costs, way: Way, places: Mapping[str, Place]) -> Prediction:
    """Predict everything about one plan."""
    plan = c.plan(way)
    transformer = Footprint.of(plan)
    loans = {name: c.loan(name, places.get(name, "resident")) for name in c.others}
    device, host = Loaned.of(c, places, loans).peaks(transformer)
    found, switch = waits(c, Held.of(plan), places)
    stages = []
    for number, ((stage, seconds), wait) in enumerate(zip(c.stages, found, strict=True)):
        inside = transformer.phases if number in c.loops else 0
        weights = {TRANSFORMER: transformer.always + inside}
        for name, loan in loans.items():
            taken = loan.footprint
            weights[name] = taken.always + (taken.on_loan if name in stage.loans else 0)
        stages.append(
            StagePrediction(
                stage.name,
                seconds + wait,
                wait,
                weights,
                stage.activations,
                c.exchanging[number] if c.exchanging else 0.0,
            )
        )
    return Prediction(
        way,
        dict(places),
        tuple(stages),
        latency_s=sum(stage.seconds for stage in stages),
        stall_s=max(0.0, sum(found) - switch),
        switch_s=switch,
        peak_device_bytes=device,
        peak_host_bytes=host,
    )
