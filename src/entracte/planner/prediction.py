"""What the planner predicts of one plan, as data."""

from collections.abc import Mapping
from dataclasses import dataclass

from entracte.residency import Place

from .candidates import Way


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
    """

    way: Way
    places: Mapping[str, Place]
    stages: tuple[StagePrediction, ...]
    latency_s: float
    stall_s: float
    switch_s: float
    peak_device_bytes: int
    peak_host_bytes: int

    @property
    def exchange_s(self) -> float:
        """Seconds in which devices exchange tensors."""
        return sum(stage.exchange_s for stage in self.stages)
