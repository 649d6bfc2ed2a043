"""One component under the manager: its layouts, its buffers, its adapters, and its runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend, Stream

from .adapters import OpenAdapter
from .bound_modules import BoundModules
from .buffer import STAGING, Buffer
from .checksum import BaseChecksum
from .component import ComponentSpec
from .factors import AdapterFactors
from .fill import Filler
from .layout import block_count, lay_out
from .merge import Change, Changes
from .phase_run import PhaseRun
from .plan import Plan, Sizes, adapters, make_plan
from .policy import ComponentPolicy
from .pool import HostBudget, WeightPool
from .prepare import save_plain
from .reading import FileReader
from .recorder import ComponentRecorder
from .unmerged import Unmerged, check_applicable
from .weights import WeightPhase, WeightSet, distinct


class ManagedComponent:
    """Holds a component's weights as its plan says, and lends its modules."""

    def __init__(
        self,
        spec: ComponentSpec,
        backend: Backend,
        budget: HostBudget,
        open_adapter: OpenAdapter,
        copies: Stream,
        recorder: ComponentRecorder,
    ) -> None:
        template = spec.build()
        self.name = spec.name
        self.blocks = block_count(template, spec.blocks)
        self.once = (WeightPhase(WeightSet(source=next(iter(spec.sources)))),)
        self.plan: Plan | None = None
        self._spec = spec
        self._template = template
        self._backend = backend
        self._open_adapter = open_adapter
        self._factors: dict[str, AdapterFactors] = {}
        self._specs = next(iter(spec.sources.values())).specs
        for name, source in spec.sources.items():
            if dict(source.specs) != dict(self._specs):
                raise ResidencyError(f"{spec.name}: the source {name} has other tensors")
        self._layouts = lay_out(template, self._specs, spec.blocks)
        self._run: PhaseRun | None = None
        self._checksum = BaseChecksum(backend)
        self._modules = BoundModules(template, self._layouts, spec.blocks, self._sweep)
        self._recorder = recorder
        self.pool = WeightPool(backend, budget, recorder, self._modules.unbind)
        files = FileReader(backend, self.pool, self._layouts, spec.sources, self._adapter, copies)
        self._filler = Filler(backend, self.pool, self._layouts, files, self._adapter, copies)

    def make_plan(self, phases: tuple[WeightPhase, ...], policy: ComponentPolicy) -> Plan:
        """How the component would be held; raises ResidencyError where it cannot."""
        sets = distinct(phases)
        self._forget_adapters(sets)
        for weights in sets:
            if weights.source not in self._spec.sources:
                raise ResidencyError(f"{self.name} has no source {weights.source!r}")
            for adapter in weights.adapters:
                changes = self._adapter(adapter.name).source.changes
                if policy.mode == "dynamic":
                    check_applicable(self._template, changes.items())
                else:
                    self._refuse_quantised(changes, policy)
        sizes = Sizes(
            tuple(layout.nbytes for layout in self._layouts),
            {name: self._adapter(name).sizes for name in adapters(sets)},
        )
        return make_plan(self.name, sizes, phases, policy, self._backend.unified)

    def phases(self, lent: Mapping[str, WeightSet]) -> tuple[WeightPhase, ...]:
        """One use of the weights that it is lent with, of its own if it is not named."""
        weights = lent.get(self.name)
        return self.once if weights is None else (WeightPhase(weights),)

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit: what loading may take of host memory beyond the plan."""
        return max(layout.nbytes for layout in self._layouts)

    @contextmanager
    def run(self, plan: Plan) -> Iterator[PhaseRun]:
        """Hold the component by a plan while it is used, and go on doing so afterwards."""
        if self._run is not None:
            raise ResidencyError(f"{self.name} is on loan already")
        self._adopt(plan)
        try:
            self.pool.allocate("run")
            self._run = PhaseRun(
                plan,
                self._backend,
                self.pool,
                self._filler,
                self._checksum,
                self._bound_module,
                self._recorder,
            )
            self._run.begin()
            self.pool.release("prepare", "phase")
            self.pool.drop_unlisted("host")
            yield self._run
        finally:
            self._run = None
            self.pool.release("run", "phase", "prepare")
            if not any(buffer.key == STAGING for buffer in plan.buffers):
                self.pool.discard(STAGING)

    def make_room(self, plan: Plan) -> None:
        """Give up what a plan does not list, if anything is held."""
        if self._run is None and self.plan not in (None, plan):
            self._adopt(plan)

    def close(self) -> None:
        """Give all memory back."""
        self.pool.close()
        self.plan = None

    def _adopt(self, plan: Plan) -> None:
        """Make the buffers those of a plan. What they hold is kept where it still serves.

        Where there is room, what moves from the device to the host, or back, is not read again:
        the host's new buffers are filled before the device's old ones go, and its old ones go last.
        """
        if plan != self.plan:
            self._modules.drop_variants()
            self._filler.forget_merges()
        self.plan = plan
        self._forget_adapters(())
        if not self.pool.adopt(plan):
            self.pool.drop_unlisted("host")
        self.pool.allocate_host()
        save_plain(self.pool, self._filler)
        self.pool.drop_unlisted("device")
        self.pool.allocate("always")

    def _sweep(self) -> Iterator[nn.Module]:
        if self._run is None:
            raise ResidencyError(f"{self.name} is used after its loan has ended")
        return self._run.sweep()

    def _bound_module(self, buffer: Buffer, unit: int, weights: WeightSet) -> nn.Module:
        if self.plan is None or not self.plan.unmerged or not weights.adapters:
            return self._modules.get(buffer, unit)
        return self._modules.get(buffer, unit, weights, lambda: self._unmerged(unit, weights))

    def _unmerged(self, unit: int, weights: WeightSet) -> Unmerged:
        beside: dict[str, list[tuple[Change, float]]] = {}
        for buffer, factors, strength in self._filler.factors(unit, weights):
            for name, each in factors.views(unit, buffer.memory).items():
                beside.setdefault(name, []).append((each, strength))
        return beside

    def _adapter(self, name: str) -> AdapterFactors:
        """An adapter, sorted by unit; its factors are not read."""
        if name not in self._factors:
            source = self._open_adapter(self.name, name)
            factors = AdapterFactors.of(source, self._spec.blocks, self.blocks)
            factors.check(self._specs)
            self._factors[name] = factors
        return self._factors[name]

    def _forget_adapters(self, sets: tuple[WeightSet, ...]) -> None:
        """Let go of adapters, and of their files, that neither these sets have nor what is held."""
        held = () if self.plan is None else distinct(self.plan.phases)
        names = adapters((*sets, *held))
        self._factors = {name: each for name, each in self._factors.items() if name in names}

    def _refuse_quantised(self, changes: Changes, policy: ComponentPolicy) -> None:
        for name in changes:
            if self._specs[name].quantised:
                raise ResidencyError(
                    f"{self.name} is quantised, and mode {policy.mode} would merge an adapter into "
                    f"it (the first weight is {name}): use mode dynamic"
                )
