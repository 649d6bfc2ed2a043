"""What a request takes under one plan, in time and memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from entracte.residency import Place

from .candidates import Way
from .costs import Costs
from .footprint import Loaned
from .latency import waits
from .model_profile import TRANSFORMER


@dataclass(frozen=True, slots=True)
class StagePrediction:
    """One stage: its seconds, how many of them it waits for weights, and its peak memory in bytes.

    weights: bytes of every component on the device meanwhile. activations: what comes on top.
    exchange_s: how many of the seconds devices exchange tensors, where there are several; memory is
        then that of each.
    """

    name: str
    seconds: float
    stall_s: float
    weights: Mapping[str, int]
    activations: int
    exchange_s: float = 0.0

    @property
    def peak_device_bytes(self) -> int:
        return sum(self.weights.values()) + self.activations


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a request under a plan will take, right after another one.

    latency_s: the whole request. stall_s: what it waits for weights, switches apart. switch_s: what
    it waits for weights between the loops.
    peak_host_bytes: of weights; other host memory is in the planner's reserve.
    for_peers_bytes, at_peers_bytes: what each of several devices holds for the others to copy, and
    what it copies of theirs.
    """

    way: Way
    places: Mapping[str, Place]
    stages: tuple[StagePrediction, ...]
    latency_s: float
    stall_s: float
    switch_s: float
    peak_device_bytes: int
    peak_host_bytes: int
    for_peers_bytes: int = 0
    at_peers_bytes: int = 0

    @property
    def exchange_s(self) -> float:
        """Seconds in which devices exchange tensors."""
        return sum(stage.exchange_s for stage in self.stages)


def predict(c: Costs, way: Way, places: Mapping[str, Place]) -> Prediction:
    """Predict everything about one plan."""
    transformer, held = c.held(way)
    loans = {name: c.loan(name, places.get(name, "resident")) for name in c.others}
    device, host = Loaned.of([stage for stage, _ in c.stages], c.loops, places, loans).peaks(
        transformer
    )
    found, switch = waits(c, held, places)
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
        for_peers_bytes=transformer.for_peers,
        at_peers_bytes=transformer.at_peers,
    )
