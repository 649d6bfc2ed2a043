"""The planner of one open model: decides for every request, and learns from what it then took."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from entracte.machine.hardware import Hardware
from entracte.parallel import Layout, Parallel
from entracte.pipeline.cache import Cache
from entracte.residency import AUTO, Residency, WeightPhase, WeightSet
from entracte.units import duration, size

from .calibration import Calibration
from .costs import OWN, Costs, Lent, costs, from_graphs
from .decision import Decision, Option, decide, describe, named_plan
from .footprint import Plans
from .limits import Limits, limits_of
from .model_profile import AdapterFigures, ModelFigures
from .moving import is_worth_moving, moving_seconds
from .prediction import Prediction, predict
from .sharing import share_out
from .transformer_work import TransformerMeter
from .workload import Workload

logger = logging.getLogger(__name__)

# How many decisions are kept, for requests of the same sizes.
CACHED_DECISIONS = 16


# What is to be computed, and the weights of the transformer and of other components for it.
DecisionKey = tuple[Workload, tuple[WeightPhase, ...], tuple[tuple[str, WeightSet], ...]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a request took: seconds by stage, including waits for weights, and peak memory.

    peak_device_bytes: 0 where it is not counted, as on a CPU. once: of the seconds, by stage, what
    its first step took longer than the others.
    """

    stages: Mapping[str, float]
    peak_device_bytes: int = 0
    once: Mapping[str, float] = field(default_factory=dict)


class Planner:
    """Decides how requests of one model are held on one machine.

    graphs, parallel: see `costs`.
    """

    def __init__(
        self,
        model: ModelFigures,
        hardware: Hardware,
        calibration: Calibration | None = None,
        graphs: bool = True,
        parallel: Parallel = "auto",
    ) -> None:
        self.model = model
        self.hardware = hardware
        self.calibration = calibration or Calibration()
        self._transformer = TransformerMeter.of(model)
        self._plans = Plans()
        self._graphs = graphs
        self._parallel = parallel
        self._ceiling: int | None = None  # a plan that needs this much of the device has failed
        self._memory_measured = False
        self._standing: tuple[Residency, Decision] | None = None  # what was wished for, and got
        self._wanted: Residency | None = None  # what the decisions below are for
        self._forget()

    def decide(
        self,
        load: Workload,
        phases: Sequence[WeightPhase],
        adapters: Mapping[str, AdapterFigures],
        wanted: Residency,
        lent: Mapping[str, Lent] = OWN,
    ) -> Decision:
        """The plan for a request; raises BudgetError, naming the nearest one, where none fits.

        A named mode is never refused here. The plan in place is kept as long as it fits and no
        other is worth moving to.
        """
        if wanted != self._wanted:
            self._wanted = wanted
            self._forget()
        c = self.costs(load, phases, adapters, lent)
        limits = self._limits(wanted)
        found = self._decisions.get(
            (load, tuple(phases), tuple((name, each.weights) for name, each in lent.items())),
            lambda: decide(c, wanted, limits, strict=wanted.mode == AUTO),
        )
        if wanted.mode == AUTO and self._standing is not None and self._standing[0] == wanted:
            return self._kept(c, self._standing[1], found, limits, wanted) or found
        return found

    def predict(
        self,
        load: Workload,
        phases: Sequence[WeightPhase],
        adapters: Mapping[str, AdapterFigures],
        wanted: Residency,
        lent: Mapping[str, Lent] = OWN,
    ) -> Prediction | None:
        """What a request takes under the plan in place, or as named; None where there is neither.

        Decides nothing, so it may be asked while a decision is made.
        """
        c = self.costs(load, phases, adapters, lent)
        if wanted.mode != AUTO:
            return predict(c, *named_plan(c, wanted))
        if self._standing is None:
            return None
        standing = self._standing[1].chosen.prediction
        return predict(c, standing.way, standing.places)

    def adopt(self, wanted: Residency, decision: Decision) -> None:
        """Note that a decision is carried out: its plan is the one in place."""
        self._standing = wanted, decision

    def costs(
        self,
        load: Workload,
        phases: Sequence[WeightPhase],
        adapters: Mapping[str, AdapterFigures],
        lent: Mapping[str, Lent] = OWN,
    ) -> Costs:
        """What predictions for a request are made from.

        adapters: of the transformer, by name. lent: the weights of other components.
        """
        model = replace(self.model, adapters={**self.model.adapters, **adapters})
        return costs(
            model,
            load,
            phases,
            self.hardware,
            self.calibration,
            self._transformer,
            lent,
            self._graphs,
            self._parallel,
            self._plans,
        )

    def layouts(self, load: Workload) -> tuple[Layout, ...]:
        """How each phase is shared out over the devices, whatever the mode."""
        graphs = self._graphs and from_graphs(self.model, self.hardware)
        return share_out(
            load, self._transformer, self.hardware, self.calibration, self._parallel, graphs
        )

    def ran_out(self, decision: Decision) -> None:
        """Rule out a plan that ran out of memory, and all that need as much of the device."""
        needed = decision.chosen.prediction.peak_device_bytes
        self._ceiling = needed if self._ceiling is None else min(self._ceiling, needed)
        self._standing = None
        self._forget()
        logger.warning(
            "%s ran out of memory where %s were predicted; the next cheaper plan is tried",
            describe(decision.chosen.prediction),
            size(needed),
        )

    def learn(self, decision: Decision, measured: Measured) -> None:
        """Correct later predictions by what a request took.

        Computing is what was measured less what was predicted to be waiting, or less what a first
        step took longer, in which kernels are compiled and graphs captured.
        """
        prediction = decision.chosen.prediction
        computing: dict[str, float] = {}
        waiting: dict[str, float] = {}
        for stage in prediction.stages:  # two of one name are added up, as they were measured
            if stage.name in measured.stages:
                seconds = stage.seconds - stage.stall_s
                computing[stage.name] = computing.get(stage.name, 0.0) + seconds
                waiting[stage.name] = waiting.get(stage.name, 0.0) + stage.stall_s
        took = {
            name: measured.stages[name] - max(seconds, measured.once.get(name, 0.0))
            for name, seconds in waiting.items()
        }
        self._forget()
        self.calibration = self.calibration.corrected(computing, took)
        if measured.peak_device_bytes:
            at_peak = max(prediction.stages, key=lambda stage: stage.peak_device_bytes)
            weights = sum(at_peak.weights.values())
            if at_peak.activations and measured.peak_device_bytes > weights:
                factor = (measured.peak_device_bytes - weights) / at_peak.activations
                memory = min(max(self.calibration.memory * factor, 0.5), 4.0)
                self.calibration = replace(self.calibration, memory=memory)
                self._memory_measured = True

    def _forget(self) -> None:
        self._decisions: Cache[DecisionKey, Decision] = Cache(CACHED_DECISIONS)

    def _limits(self, wanted: Residency) -> Limits:
        limits = limits_of(self.hardware, wanted)
        if self._ceiling is not None:
            limits = replace(limits, device=min(limits.device, self._ceiling - 1))
        return limits

    def _kept(
        self, c: Costs, standing: Decision, found: Decision, limits: Limits, wanted: Residency
    ) -> Decision | None:
        """The plan in place, predicted for this request; None if another has to be taken."""
        way, places = standing.chosen.prediction.way, standing.chosen.prediction.places
        best = found.chosen.prediction
        if (way, dict(places)) == (best.way, dict(best.places)):
            return None
        prediction = predict(c, way, places)
        if self._memory_measured and self._ceiling is None:
            limits = limits.after_measuring()
        if not limits.allow(prediction.peak_device_bytes, prediction.peak_host_bytes):
            return None
        moving = moving_seconds(c, prediction, best)
        if is_worth_moving(prediction, best, moving):
            return None
        saved = max(0.0, prediction.latency_s - best.latency_s)
        reason = (
            f"in place already: {describe(best)} would save {duration(saved)} a request, "
            f"and moving to it takes {duration(moving)}"
        )
        asked = way.residency(places, wanted)
        chosen = Option(prediction, True, reason)
        return Decision(chosen, found.alternatives, asked, limits, c.layouts)
