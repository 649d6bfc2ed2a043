"""Measures one mode: repeated runs of the same request, with all stages."""

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.config.wording import worded
from entracte.engine import Engine
from entracte.errors import BudgetError, OutOfMemory
from entracte.planner.prediction import Prediction
from entracte.request import Request
from entracte.residency import Residency
from entracte.result import Result
from entracte.trace.trace import TraceOptions
from entracte.trace.waits import Parts
from entracte.units import MIB, size

from .diffusers_result import MeasuredPeer
from .presets import BenchTask
from .step_floors import StepFloor

# Modes as the tables name them.
MODES: Mapping[str, Residency] = MappingProxyType(
    {
        "resident": Residency("resident"),
        "fused": Residency("fused"),
        "snapshot aggressive": Residency("snapshot", "aggressive"),
        "snapshot low-vram": Residency("snapshot", "low-vram"),
        "original": Residency("original"),
        "dynamic": Residency("dynamic"),
        "auto": Residency("auto"),
    }
)

# The modes whose latents must be the same, bit for bit.
EXACT = tuple(name for name in MODES if name != "dynamic")


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run. Times in seconds, memory in bytes; stages of the same name are added up.

    steps: the median step of every loop, by the loop's stage.
    device_bytes: the peak of what was allocated there, 0 without a device. closed: the sum of all
    parts over end to end. digest: of all latents.
    """

    stages: Mapping[str, float]
    steps: Mapping[str, float]
    end_to_end: float
    parts: Parts
    device_bytes: int
    host_bytes: int
    closed: float
    digest: str


@dataclass(frozen=True, slots=True)
class MeasuredMode:
    """A mode's runs; none if it was skipped, for the reason in `skipped`.

    predicted: by the planner, before. last: the last run's result.
    """

    mode: str
    predicted: Prediction | None
    runs: tuple[MeasuredRun, ...] = ()
    skipped: str | None = None
    last: Result | None = None

    def median(self, of: Callable[[MeasuredRun], float]) -> float:
        return statistics.median(of(run) for run in self.runs)

    def spread(self, of: Callable[[MeasuredRun], float]) -> float:
        """The largest less the smallest, as a share of the median."""
        values = [of(run) for run in self.runs]
        middle = statistics.median(values)
        return (max(values) - min(values)) / middle if middle else 0.0

    def stage(self, name: str) -> float:
        """The median of a stage, in seconds; 0 if the stage is missing."""
        return self.median(lambda run: run.stages.get(name, 0.0))

    def step(self, name: str) -> float:
        """The median step of a stage, in seconds; 0 if it has no steps."""
        return self.median(lambda run: run.steps.get(name, 0.0))


@dataclass(frozen=True, slots=True)
class MeasuredTask:
    """A task in all modes, beside the floor under its steps and beside others.

    request: as it was made, every value settled.
    """

    task: BenchTask
    request: Request
    modes: Sequence[MeasuredMode]
    floors: Sequence[StepFloor]
    peers: Sequence[MeasuredPeer]


def measure(
    engine: Engine,
    request: Request,
    mode: str,
    residency: Residency,
    warmups: int,
    repeats: int,
    options: TraceOptions,
    tell: Callable[[str], None],
) -> MeasuredMode:
    """Measure one mode; it is skipped, with the reason, if it does not fit.

    residency: the mode, with the budgets that all modes have. tell: is called with what is being
    done.
    """
    engine.configure(residency)
    try:
        decision = engine.plan(request)
        prediction = decision.chosen.prediction
        missing = decision.limits.excess(prediction.peak_device_bytes, prediction.peak_host_bytes)
        if missing:
            lacks = " and ".join(f"{size(nbytes)} of {what}" for what, nbytes in missing.items())
            return MeasuredMode(mode, prediction, skipped=f"lacks {lacks}")
        runs = []
        for number in range(warmups + repeats):
            warm = number < warmups
            tell(f"{mode}: {'warm-up' if warm else f'run {number - warmups + 1} of {repeats}'}")
            engine.forget_prompts()
            result = engine.generate(request, keep_frames=False, trace=options)
            if not warm:
                runs.append(run_of(result))
    except (BudgetError, OutOfMemory) as error:
        return MeasuredMode(mode, None, skipped=worded(error))
    if result.decision is not None:
        prediction = result.decision.chosen.prediction
    return MeasuredMode(mode, prediction, tuple(runs), last=result)


def run_of(result: Result) -> MeasuredRun:
    """The figures of a result's trace."""
    trace = result.trace
    stages: dict[str, float] = {}
    for span in trace.spans:
        stages[span.name] = stages.get(span.name, 0.0) + span.seconds
    parts = sum(trace.parts(), Parts())
    memory = [span.memory for span in trace.spans if span.memory is not None]
    return MeasuredRun(
        stages,
        {span.name: statistics.median(span.steps) for span in trace.spans if span.steps},
        trace.seconds,
        parts,
        round(max(each.peak_allocated_mb for each in memory) * MIB),
        round(max(each.peak_host_anon_mb for each in memory) * MIB),
        parts.total / trace.seconds,
        digest(result.latents),
    )


def digest(latents: Mapping[str, Tensor]) -> str:
    """A hash of the bits."""
    found = hashlib.sha256()
    for name in sorted(latents):
        found.update(name.encode())
        found.update(latents[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
