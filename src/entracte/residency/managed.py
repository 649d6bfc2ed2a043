"""One component under the manager: its layouts, buffers, adapters and runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend, Stream

from .bound_modules import BoundModules
from .buffer import Buffer
from .buffer_key import STAGING, BlockWeights
from .checksum import BaseChecksum
from .layout import lay_out
from .loading import WeightLoader
from .merge import Change
from .phase_run import PhaseRun
from .plan import Plan, RankShare, Sizes, adapters, check_policy, make_plan
from .policy import ComponentPolicy
from .pool import HostBudget, WeightPool
from .prepare import save_plain
from .recorder import ComponentRecorder
from .spec import ComponentSpec, OpenAdapter, WeightPhase, WeightSet, distinct
from .unit_reader import UnitReader
from .unmerged import Unmerged, check_applicable


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
        together: bool,
    ) -> None:
        self.name = spec.name
        self.once = (WeightPhase(WeightSet(source=next(iter(spec.sources)))),)
        self.plan: Plan | None = None
        self._template = spec.build()
        self._backend = backend
        self._reader = UnitReader(spec, self._template, open_adapter)
        self._spec = spec
        self._modules = BoundModules(self._template, self._reader.layouts, spec.blocks, self._sweep)
        self._stored_modules: BoundModules | None = None  # that compute from what is stored
        self.pool = WeightPool(spec.name, together, backend, budget, recorder, self._unbind)
        self._loader = WeightLoader(backend, self.pool, self._reader, copies)
        self._checksum = BaseChecksum(backend)
        self._run: PhaseRun | None = None

    def check(self, policy: ComponentPolicy) -> None:
        """Raise ResidencyError if the component cannot be held so, whatever its phases."""
        check_policy(self.name, self.blocks, policy)

    def make_plan(self, phases: tuple[WeightPhase, ...], policy: ComponentPolicy) -> Plan:
        """Plan how the component is held; raises ResidencyError if it cannot be."""
        sets = distinct(phases)
        self._keep_adapters(sets)
        for weights in sets:
            if weights.source not in self._reader.sources:
                raise ResidencyError(f"{self.name} has no source {weights.source!r}")
            for adapter in weights.adapters:
                changes = self._reader.adapter(adapter.name).source.changes
                if policy.mode == "dynamic":
                    check_applicable(self._template, changes.items())
                elif first := self._reader.first_unmergeable(changes):
                    raise ResidencyError(
                        f"{self.name} is quantised, and mode {policy.mode} would merge an adapter "
                        f"into it (the first weight is {first}): use mode dynamic"
                    )
        if policy.mode == "dynamic" and self._reader.expanded and self._spec.build_stored is None:
            raise ResidencyError(
                f"{self.name} cannot compute from its weights as they are stored, which mode "
                "dynamic does: use mode fused, resident, snapshot or original"
            )
        factors = {name: self._reader.adapter(name).sizes for name in adapters(sets)}
        reader = self._reader
        sizes = Sizes(reader.sizes, factors, reader.stored_sizes, reader.scratch_size)
        share = RankShare(self._backend.peers.rank, self._backend.peers.size)
        return make_plan(self.name, sizes, phases, policy, self._backend.unified, share)

    def phases(self, lent: Mapping[str, WeightSet]) -> tuple[WeightPhase, ...]:
        """One phase with the weights that it is lent with, by default its own."""
        weights = lent.get(self.name)
        return self.once if weights is None else (WeightPhase(weights),)

    @property
    def blocks(self) -> int:
        """The number of blocks; 0 for a component in one piece."""
        return self._reader.blocks

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit: the host memory that loading may take beyond the plan."""
        return self._reader.largest_read

    @contextmanager
    def run(self, plan: Plan) -> Iterator[PhaseRun]:
        """Hold the component by a plan, during use and afterwards."""
        if self._run is not None:
            raise ResidencyError(f"{self.name} is on loan already")
        self._adopt(plan)
        try:
            self.pool.allocate("run")
            self._run = PhaseRun(
                plan, self._backend, self.pool, self._loader, self._checksum, self._bound_module
            )
            self._run.begin()
            self.pool.release("prepare", "phase")
            self.pool.drop_unlisted("host")
            yield self._run
        finally:
            self._run = None
            self.pool.peer_copies.leave()
            self.pool.release("run", "phase", "prepare")
            if not any(buffer.key == STAGING for buffer in plan.buffers):
                self.pool.discard(STAGING)

    def make_room(self, plan: Plan) -> None:
        """Free what a plan does not list, if anything is held."""
        if self._run is None and self.plan not in (None, plan):
            self._adopt(plan)

    def close(self) -> None:
        """Free all memory."""
        self.pool.close()
        self.plan = None

    def _adopt(self, plan: Plan) -> None:
        """Change the buffers to those of a plan, keeping contents that still serve.

        If there is room, weights that move between device and host are not read again: the host's
        new buffers are loaded before the device's old ones are freed, and its old ones are freed
        last.
        """
        if plan != self.plan:
            for modules in self._bound():
                modules.keep({buffer.key for buffer in plan.buffers})
            self._loader.forget_merges()
        self.plan = plan
        self._keep_adapters(())
        if not self.pool.adopt(plan):
            self.pool.drop_unlisted("host")
        self.pool.allocate_host()
        save_plain(plan, self.pool, self._loader)
        self.pool.drop_unlisted("device")
        self.pool.allocate("always")

    def _sweep(self) -> Iterator[nn.Module]:
        if self._run is None:
            raise ResidencyError(f"{self.name} is used after its loan has ended")
        return self._run.sweep()

    def _bound_module(self, buffer: Buffer, content: BlockWeights, weights: WeightSet) -> nn.Module:
        modules, unit = self._modules, content.unit
        if content.stored:
            modules = self._stored_modules = self._stored_modules or self._compute_from_stored()
        if self.plan is None or not self.plan.unmerged or not weights.adapters:
            return modules.get(buffer, unit)
        return modules.get(buffer, unit, weights, lambda: self._unmerged(unit, weights))

    @torch.inference_mode(False)
    def _compute_from_stored(self) -> BoundModules:
        if self._spec.build_stored is None:
            raise RuntimeError(f"{self.name} was planned to compute from what is stored")
        module, reader = self._spec.build_stored(), self._reader
        parts = {
            name + end: part
            for name, spec in reader.specs.items()
            for end, part in spec.parts.items()
        }
        lay_out(module, parts, self._spec.blocks)  # raises where they do not fit
        layouts = tuple(
            reader.expanded.get(unit, layout) for unit, layout in enumerate(reader.layouts)
        )
        return BoundModules(module, layouts, self._spec.blocks, self._sweep)

    def _bound(self) -> tuple[BoundModules, ...]:
        return (self._modules, *([self._stored_modules] if self._stored_modules else []))

    def _unbind(self, buffer: Buffer) -> None:
        for modules in self._bound():
            modules.unbind(buffer)

    def _unmerged(self, unit: int, weights: WeightSet) -> Unmerged:
        beside: dict[str, list[tuple[Change, float]]] = {}
        for loaded in self._loader.factors(unit, weights):
            for name, each in loaded.layout.views(unit, loaded.buffer.memory).items():
                beside.setdefault(name, []).append((each, loaded.strength))
        return beside

    def _keep_adapters(self, sets: tuple[WeightSet, ...]) -> None:
        """Close adapters, and their files, that neither these sets nor the present plan use."""
        held = () if self.plan is None else distinct(self.plan.phases)
        self._reader.keep_adapters(adapters((*sets, *held)))
