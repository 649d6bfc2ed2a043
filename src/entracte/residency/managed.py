"""One component under the manager: its layouts, its arenas, its adapters, and its runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend, Stream

from .adapters import OpenAdapter
from .bound_modules import Shells
from .buffer import STAGING, Arena
from .checksum import BaseProof
from .component import ComponentSpec
from .factors import AdapterFactors
from .fill import Filler
from .layout import block_count, lay_out
from .merge import Change, Changes
from .phase_run import ComponentRun
from .plan import Plan, Sizes, adapters, make_plan
from .policy import Holding
from .pool import HostBudget, Stores
from .prepare import save_plain
from .reading import FileReader
from .recorder import ComponentJournal
from .unmerged import Unmerged, check_applicable
from .weights import WeightPhase, WeightSet, distinct


class HeldComponent:
    """Holds a component's weights as its plan says, and lends its modules."""

    def __init__(
        self,
        spec: ComponentSpec,
        backend: Backend,
        budget: HostBudget,
        open_adapter: OpenAdapter,
        copies: Stream,
        journal: ComponentJournal,
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
        self._run: ComponentRun | None = None
        self._proof = BaseProof(backend)
        self._shells = Shells(template, self._layouts, spec.blocks, self._sweep)
        self._journal = journal
        self.stores = Stores(backend, budget, journal, self._shells.unbind)
        files = FileReader(backend, self.stores, self._layouts, spec.sources, self._adapter, copies)
        self._filler = Filler(backend, self.stores, self._layouts, files, self._adapter, copies)

    def make_plan(self, phases: tuple[WeightPhase, ...], how: Holding) -> Plan:
        """How the component would be held; raises ResidencyError where it cannot."""
        sets = distinct(phases)
        self._forget_adapters(sets)
        for weights in sets:
            if weights.source not in self._spec.sources:
                raise ResidencyError(f"{self.name} has no source {weights.source!r}")
            for adapter in weights.adapters:
                changes = self._adapter(adapter.name).source.changes
                if how.mode == "dynamic":
                    check_applicable(self._template, changes.items())
                else:
                    self._refuse_quantised(changes, how)
        sizes = Sizes(
            tuple(layout.nbytes for layout in self._layouts),
            {name: self._adapter(name).sizes for name in adapters(sets)},
        )
        return make_plan(self.name, sizes, phases, how, self._backend.unified)

    def phases(self, lent: Mapping[str, WeightSet]) -> tuple[WeightPhase, ...]:
        """One use of the weights that it is lent with, of its own if it is not named."""
        weights = lent.get(self.name)
        return self.once if weights is None else (WeightPhase(weights),)

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit: what loading may take of host memory beyond the plan."""
        return max(layout.nbytes for layout in self._layouts)

    @contextmanager
    def run(self, plan: Plan) -> Iterator[ComponentRun]:
        """Hold the component by a plan while it is used, and go on doing so afterwards."""
        if self._run is not None:
            raise ResidencyError(f"{self.name} is on loan already")
        self._adopt(plan)
        try:
            self.stores.allocate("run")
            self._run = ComponentRun(
                plan,
                self._backend,
                self.stores,
                self._filler,
                self._proof,
                self._shell,
                self._journal,
            )
            self._run.begin()
            self.stores.release("prepare", "phase")
            self.stores.drop_unlisted("host")
            yield self._run
        finally:
            self._run = None
            self.stores.release("run", "phase", "prepare")
            if not any(arena.key == STAGING for arena in plan.arenas):
                self.stores.discard(STAGING)

    def make_room(self, plan: Plan) -> None:
        """Give up what a plan does not list, if anything is held."""
        if self._run is None and self.plan not in (None, plan):
            self._adopt(plan)

    def close(self) -> None:
        """Give all memory back."""
        self.stores.close()
        self.plan = None

    def _adopt(self, plan: Plan) -> None:
        """Make the arenas those of a plan. What they hold is kept where it still serves.

        Where there is room, what moves from the device to the host, or back, is not read again:
        the host's new arenas are filled before the device's old ones go, and its old ones go last.
        """
        if plan != self.plan:
            self._shells.drop_variants()
            self._filler.forget_merges()
        self.plan = plan
        self._forget_adapters(())
        if not self.stores.adopt(plan):
            self.stores.drop_unlisted("host")
        self.stores.allocate_host()
        save_plain(self.stores, self._filler)
        self.stores.drop_unlisted("device")
        self.stores.allocate("always")

    def _sweep(self) -> Iterator[nn.Module]:
        if self._run is None:
            raise ResidencyError(f"{self.name} is used after its loan has ended")
        return self._run.sweep()

    def _shell(self, arena: Arena, unit: int, weights: WeightSet) -> nn.Module:
        if self.plan is None or not self.plan.unmerged or not weights.adapters:
            return self._shells.get(arena, unit)
        return self._shells.get(arena, unit, weights, lambda: self._unmerged(unit, weights))

    def _unmerged(self, unit: int, weights: WeightSet) -> Unmerged:
        beside: dict[str, list[tuple[Change, float]]] = {}
        for arena, factors, strength in self._filler.factors(unit, weights):
            for name, each in factors.views(unit, arena.memory).items():
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

    def _refuse_quantised(self, changes: Changes, how: Holding) -> None:
        for name in changes:
            if self._specs[name].quantised:
                raise ResidencyError(
                    f"{self.name} is quantised, and mode {how.mode} would merge an adapter into it "
                    f"(the first weight is {name}): use mode dynamic"
                )
