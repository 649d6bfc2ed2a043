"""Planning for an open model: its requests as workloads, and its machine and LoRAs as figures."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch

from entracte.checkpoints.sources import ModelSource
from entracte.machine import probe
from entracte.machine.hardware import Hardware
from entracte.machine.peers import with_devices
from entracte.parallel import Layout, Parallel, default_layout
from entracte.pipeline.cache import Cache
from entracte.pipeline.resolved import ResolvedRequest
from entracte.residency import AUTO, Backend, OpenAdapter, Residency, WeightPhase
from entracte.trace.trace import Trace
from entracte.units import MIB

from .costs import Lent
from .decision import Decision
from .model_profile import TRANSFORMER, AdapterFigures, adapter_figures, figures_of
from .planner import Measured, Planner
from .prediction import Prediction
from .workload import Workload

# How many LoRAs' figures are kept for later requests.
KEPT_FIGURES = 64


class ModelPlanner:
    """Decides where an open model's weights live, request by request.

    wanted: where the caller wants them. decision: the one that is carried out, in mode `auto`.
    adapters: what a LoRA does to a component, by the names of both. hardware: None: the backend's
        machine is probed. graphs: blocks may be run from captured graphs.
    """

    def __init__(
        self,
        source: ModelSource,
        dtype: torch.dtype,
        adapters: OpenAdapter,
        backend: Backend,
        wanted: Residency,
        hardware: Hardware | None = None,
        graphs: bool = True,
        parallel: Parallel = "auto",
    ) -> None:
        self.wanted = wanted
        self.decision: Decision | None = None
        self._source = source
        self._dtype = dtype
        self._open_adapter = adapters
        self._backend = backend
        self._hardware = hardware
        self._graphs = graphs
        self._parallel = parallel
        self._planner: Planner | None = None
        self._adapters: Cache[tuple[str, str], AdapterFigures] = Cache(KEPT_FIGURES)

    @property
    def planner(self) -> Planner:
        if self._planner is None:
            # Modules are traced as they are, whatever the caller computes in.
            with torch.inference_mode(False), torch.no_grad():
                model = figures_of(self._source, self._dtype)
                hardware = with_devices(self._hardware or self._probe(), self._backend.peers.size)
            self._planner = Planner(model, hardware, graphs=self._graphs, parallel=self._parallel)
        return self._planner

    @property
    def decided(self) -> Residency | None:
        """How weights are held by the decision."""
        return None if self.decision is None else self.decision.residency

    def want(self, residency: Residency) -> None:
        """Have weights held otherwise, from the next request on."""
        self.wanted, self.decision = residency, None

    def decide(self, resolved: ResolvedRequest) -> Decision:
        """The plan for a request; raises BudgetError, naming the nearest one, where none fits.

        All its prompts are assumed to be new, so that there is room when an unseen one comes.
        """
        load = Workload.of(resolved, new_prompts=resolved.prompts)
        phases, lent = resolved.weight_phases, self._lent(resolved)
        return self.planner.decide(load, phases, self._adapters_of(phases), self.wanted, lent)

    def adopt(self, resolved: ResolvedRequest) -> None:
        """Decide, in mode `auto`, and carry that out. Raises what `decide` does."""
        if self.wanted.mode == AUTO:
            self.decision = self.decide(resolved)
            self.planner.adopt(self.wanted, self.decision)

    def predict(self, resolved: ResolvedRequest) -> Prediction | None:
        """What a request takes under the plan in place; None before there is one."""
        if self._planner is None:
            return None
        load = Workload.of(resolved, new_prompts=resolved.prompts)
        phases, lent = resolved.weight_phases, self._lent(resolved)
        return self._planner.predict(load, phases, self._adapters_of(phases), self.wanted, lent)

    def layouts(self, resolved: ResolvedRequest, predicted: bool) -> tuple[Layout, ...]:
        """How each of a request's phases is shared out over the devices.

        predicted: the quickest; otherwise as many tokens as can be are shared out, as ranks without
        a leader can tell themselves. So it is on CPUs in other modes than `auto`: they would be
        measured for it alone.
        """
        ranks = self._backend.peers.size
        if ranks > 1 and predicted:
            if self.decision is not None:
                return self.decision.layouts
            if not self._backend.unified:
                load = Workload.of(resolved, new_prompts=resolved.prompts)
                return self.planner.layouts(load)
        config = self._source.components[TRANSFORMER].config
        heads = config["num_attention_heads"], config["audio_num_attention_heads"]
        return (default_layout(self._parallel, ranks, heads),) * len(resolved.phases)

    def exchange_shares(self, resolved: ResolvedRequest) -> dict[str, float]:
        """By stage, the share of its computing in which devices exchange tensors, as predicted.

        Empty before there is a plan.
        """
        prediction = self.predict(resolved)
        stages = () if prediction is None else prediction.stages
        return {s.name: s.exchange_s / (s.seconds - s.stall_s) for s in stages if s.exchange_s}

    def ran_out(self) -> bool:
        """Rule out the decision, which ran out of memory, and all plans that need as much.

        Returns whether there was one.
        """
        if self.decision is None:
            return False
        self.planner.ran_out(self.decision)
        self.decision = None
        return True

    def learn(self, decision: Decision, trace: Trace) -> None:
        """Correct later predictions by what a request took."""
        self.planner.learn(decision, measured(trace))

    def _probe(self) -> Hardware:
        located = next(iter(self._source.components["transformer"].tensors.values()))
        folder = located.file.path.resolve().parent
        return probe(self._backend, self._dtype, folder=folder if folder.is_dir() else None)

    def _adapters_of(self, phases: Sequence[WeightPhase]) -> dict[str, AdapterFigures]:
        """Those of the transformer, by name."""
        names = {each.name for phase in phases for each in phase.weights.adapters}
        return {name: self._figures(TRANSFORMER, name) for name in sorted(names)}

    def _lent(self, resolved: ResolvedRequest) -> dict[str, Lent]:
        """Other components' weights, where they are not their own."""
        return {
            component: Lent(
                weights,
                {e.name: self._figures(component, e.name).nbytes for e in weights.adapters},
            )
            for component, weights in resolved.weights.lent.items()
        }

    def _figures(self, component: str, name: str) -> AdapterFigures:
        def make() -> AdapterFigures:
            changes = self._open_adapter(component, name).changes
            return adapter_figures(component, changes, self.planner.model)

        # A LoRA that was replaced has another name now, and is not looked up again.
        return self._adapters.get((component, name), make)


def named(wanted: Residency) -> Residency:
    """What the device manager starts with, before the planner has seen a request."""
    return replace(wanted, mode="fused") if wanted.mode == AUTO else wanted


def measured(trace: Trace) -> Measured:
    """What the stages of a trace took. Stages of the same name are added up."""
    stages: dict[str, float] = {}
    once: dict[str, float] = {}
    for span in trace.spans:
        stages[span.name] = stages.get(span.name, 0.0) + span.seconds
        if len(span.steps) > 1:
            first, *others = span.steps
            longer = max(0.0, first - median(others))
            once[span.name] = once.get(span.name, 0.0) + longer
    peaks = [span.memory.peak_allocated_mb for span in trace.spans if span.memory is not None]
    return Measured(stages, int(max(peaks, default=0.0) * MIB), once)
