"""The cost model: what a request takes, in time and memory, under a plan on a machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entracte.machine.hardware import Hardware
from entracte.residency import Place, WeightPhase, distinct

from .calibration import Calibration
from .candidates import Way
from .footprint import Footprint, Weights, loaned_footprint, transformer_footprint
from .model_profile import TRANSFORMER, ModelFigures
from .prediction import Prediction, StagePrediction
from .schedule_model import BusyUntil, Loops, Sweeps, loan_wait, merge_seconds
from .transformer_work import TransformerMeter
from .work import StageWork, stage_work
from .workload import Workload


@dataclass(frozen=True, slots=True)
class Costs:
    """All that is the same for every plan of one request on one machine.

    stages: with the seconds that each computes. weights: sizes of the components.
    plain, adapted: whether the transformer's plain weights are used, and how many other sets.
    """

    stages: tuple[tuple[StageWork, float], ...]
    phases: tuple[Sweeps, ...]
    weights: Mapping[str, Weights]
    hardware: Hardware
    plain: bool
    adapted: int

    @property
    def sets(self) -> int:
        return self.plain + self.adapted

    @property
    def others(self) -> dict[str, int]:
        """The components beside the transformer, and how many blocks each has."""
        return {name: w.blocks for name, w in self.weights.items() if name != TRANSFORMER}

    @property
    def computing(self) -> float:
        """Seconds that a request takes when every weight is at hand."""
        return sum(seconds for _, seconds in self.stages)

    @property
    def loops(self) -> range:
        """The numbers of the stages from the first loop to the last."""
        found = [at for at, (stage, _) in enumerate(self.stages) if stage.phase is not None]
        return range(found[0], found[-1] + 1)

    def loan_waits(self, places: Mapping[str, Place]) -> float:
        """What all stages wait for the other components' weights, when nothing else is brought."""
        waited = 0.0
        for stage, seconds in self.stages:
            for name in stage.loans:
                each = seconds / len(stage.loans)
                place = places.get(name, "resident")
                waited += loan_wait(self.weights[name], place, each, self.hardware)
        return waited

    def transformer(self, way: Way) -> Footprint:
        """What the transformer's weights take."""
        w = self.weights[TRANSFORMER]
        return transformer_footprint(w, self.plain, self.adapted, way, self.hardware.unified)

    def loaned(self, name: str, place: Place) -> Footprint:
        """What another component's weights take."""
        return loaned_footprint(self.weights[name], place, self.hardware.unified)


def costs(
    model: ModelFigures,
    load: Workload,
    phases: Sequence[WeightPhase],
    hardware: Hardware,
    calibration: Calibration,
    transformer: TransformerMeter,
) -> Costs:
    """Prepare predictions. `phases` are the transformer's, and name adapters of the model."""
    work = stage_work(model, load, transformer)
    stages = tuple(
        (calibration.corrected_memory(stage), calibration.seconds(stage, hardware))
        for stage in work
    )
    sets = distinct(tuple(phases))
    names = dict.fromkeys(each.name for weights in sets for each in weights.adapters)
    weights = {
        name: Weights.of(units, [model.adapters[each].nbytes for each in names])
        if name == TRANSFORMER
        else Weights.of(units)
        for name, units in model.units.items()
    }
    units = model.units[TRANSFORMER]
    loops = []
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
        blocks = weights[TRANSFORMER].blocks
        block = seconds / max(1, phase.sweeps * blocks)
        loops.append(Sweeps(phase.sweeps, block, sets.index(phase.weights), merge, outside))
    adapted = sum(1 for each in sets if each.adapters)
    return Costs(stages, tuple(loops), weights, hardware, len(sets) > adapted, adapted)


def waits(c: Costs, way: Way, places: Mapping[str, Place]) -> tuple[list[float], float]:
    """What every stage of a request waits for weights, and its switches together.

    The second of two requests, one right after the other: weights may be under way when it begins.
    """
    loops = Loops(c.weights[TRANSFORMER], way, c.phases, c.hardware)
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
                    w, each = c.weights[name], seconds / len(stage.loans)
                    wait = loan_wait(w, place, each, c.hardware)
                    clock = clock.brought(w.nbytes / c.hardware.rates.h2d, wait)
            if stage.phase is None:
                clock = clock.computed(seconds)
            else:
                clock = loops.run(stage.phase, clock)
            found.append(max(0.0, clock.now - began - seconds))
        switch = loops.switch
    return found, switch


def latency(c: Costs, way: Way, places: Mapping[str, Place]) -> float:
    """Seconds of a whole request."""
    found, _ = waits(c, way, places)
    return sum(found) + c.computing


def latency_alone(c: Costs, way: Way) -> tuple[float, bool]:
    """Seconds of a request with all other components on the device.

    And whether other components' weights wait for the transformer's: else their waits add up.
    """
    loops = Loops(c.weights[TRANSFORMER], way, c.phases, c.hardware)
    if loops.linked:
        return latency(c, way, {}), True
    clock = BusyUntil()
    for number in range(len(c.phases)):
        clock = loops.run(number, clock)
    between = sum(seconds for stage, seconds in c.stages if stage.phase is None)
    return clock.now + between, False


@dataclass(frozen=True, slots=True)
class Loaned:
    """The components beside the transformer, at given places.

    waits: seconds that all stages wait for them. always, host: bytes, for good. outside, inside:
    the most bytes that a stage takes of the device for its loans and activations, before and after
    the phases, and from the first loop to the last. least: bytes that the device needs at least.
    """

    places: Mapping[str, Place]
    waits: float
    always: int
    host: int
    outside: int
    inside: int

    @classmethod
    def of(cls, c: Costs, places: Mapping[str, Place]) -> "Loaned":
        loans = {name: c.loaned(name, places.get(name, "resident")) for name in c.others}
        loops = c.loops
        outside = inside = 0
        for number, (stage, _) in enumerate(c.stages):
            nbytes = stage.activations + sum(loans[name].run for name in stage.loans)
            if number in loops:
                inside = max(inside, nbytes)
            else:
                outside = max(outside, nbytes)
        return cls(
            places,
            c.loan_waits(places),
            sum(each.always for each in loans.values()),
            sum(each.host for each in loans.values()),
            outside,
            inside,
        )

    @property
    def least(self) -> int:
        return self.always + max(self.outside, self.inside)

    def peaks(self, transformer: Footprint) -> tuple[int, int]:
        """The most bytes of the device and of the host at any time, with the transformer's."""
        most = max(
            transformer.prepare + transformer.phases,
            self.outside,
            self.inside + transformer.phases,
        )
        return transformer.always + self.always + most, transformer.host + self.host


def predict(c: Costs, way: Way, places: Mapping[str, Place]) -> Prediction:
    """Everything about one plan."""
    transformer = c.transformer(way)
    loans = {name: c.loaned(name, places.get(name, "resident")) for name in c.others}
    device, host = Loaned.of(c, places).peaks(transformer)
    found, switch = waits(c, way, places)
    stages = []
    for number, ((stage, seconds), wait) in enumerate(zip(c.stages, found, strict=True)):
        inside = transformer.phases if number in c.loops else 0
        weights = {TRANSFORMER: transformer.always + inside}
        for name, each in loans.items():
            weights[name] = each.always + (each.run if name in stage.loans else 0)
        stages.append(StagePrediction(stage.name, seconds + wait, wait, weights, stage.activations))
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
