"""The device manager: decides where every component's weights are, and lends its modules."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Self, TypeVar

from torch import nn

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend

from .budget import ConcurrentUse, ManagerPlan, check_budgets
from .managed import ManagedComponent
from .phase_run import PhaseRun
from .policy import Residency, resolve_policy
from .pool import HostBudget
from .recorder import BufferState, ComponentRecorder, Record, Recorder
from .spec import ComponentSpec, OpenAdapter, WeightPhase, WeightSet, no_adapters
from .usage import Row, residency_rows

M = TypeVar("M", bound=nn.Module)

NO_SETS: Mapping[str, WeightSet] = MappingProxyType({})


class DeviceManager:
    """Holds components as `wanted` says. Not shared between threads; close it when done.

    adapted: the component that has several weight sets in a request; mode and dials are its.
    adapters: opens an adapter of a component.
    concurrent_uses: which components are on loan together (default: one at a time).
    """

    def __init__(
        self,
        specs: Sequence[ComponentSpec],
        backend: Backend,
        wanted: Residency,
        *,
        adapted: str | None = None,
        adapters: OpenAdapter = no_adapters,
        concurrent_uses: Sequence[ConcurrentUse] | None = None,
    ) -> None:
        self.backend = backend
        self.adapted = specs[0].name if adapted is None else adapted
        names = [spec.name for spec in specs]
        self._concurrent_uses = concurrent_uses or [
            ConcurrentUse(frozenset([name])) for name in names
        ]
        self._executing: ManagerPlan | None = None
        self._recorder = Recorder(backend)
        self._budget = HostBudget()
        self._components = {
            spec.name: ManagedComponent(
                spec,
                backend,
                self._budget,
                adapters,
                backend.copies if spec.name == self.adapted else backend.on_demand,
                ComponentRecorder(self._recorder, spec.name),
                together=spec.name == self.adapted,
            )
            for spec in specs
        }
        self.configure(wanted)

    def configure(self, wanted: Residency) -> None:
        """Hold weights in another way from the next request on; raises ResidencyError.

        Weights in memory are moved rather than read again, if there is room.
        """
        for name in wanted.places:
            if name not in self._components:
                known = ", ".join(self._components)
                raise ResidencyError(f"no component {name!r} to place; there are {known}")
        for name, held in self._components.items():
            held.check(resolve_policy(name, name == self.adapted, wanted))
        self.wanted = wanted
        self._budget.set_limits(wanted.host_memory, wanted.pinned_memory)

    def plan(
        self, phases: Sequence[WeightPhase], lent: Mapping[str, WeightSet] = NO_SETS
    ) -> ManagerPlan:
        """Plan how all components are held for these phases of the adapted one.

        lent: with which weights other components are borrowed (default: their own).
        Raises BudgetError, naming what would fit, and ResidencyError.
        """
        plan = self._plan(tuple(phases), lent, self.wanted)
        check_budgets(plan, self.wanted, lambda wanted: self._plan(tuple(phases), lent, wanted))
        return plan

    def request(
        self, phases: Sequence[WeightPhase], lent: Mapping[str, WeightSet] = NO_SETS
    ) -> AbstractContextManager[PhaseRun]:
        """Plan a request, and execute the plan; raises what `plan` and `execute` raise."""
        return self.execute(self.plan(phases, lent))

    @contextmanager
    def execute(self, plan: ManagerPlan) -> Iterator[PhaseRun]:
        """Run the adapted component through the phases of a plan made by `plan`.

        Other components may be borrowed within, with the weights that the plan lends them with.
        Raises ResidencyError if the manager was configured since, OutOfMemory, and DeviceFault,
        after which the manager can only be released.
        """
        if plan.wanted != self.wanted:
            raise ResidencyError("this plan was made for another residency: plan the request again")
        self._make_room(plan, self.adapted)
        with self._components[self.adapted].run(plan.components[self.adapted]) as run:
            self._executing = plan
            try:
                yield run
            finally:
                self._executing = None

    @contextmanager
    def borrow(self, name: str, kind: type[M]) -> Iterator[M]:
        """Lend a component under one weight set for the duration of a stage. `kind` is its class.

        Raises OutOfMemory and DeviceFault; outside of a request, which has a plan already, also
        BudgetError before anything is allocated.
        """
        if name not in self._components:
            known = ", ".join(self._components)
            raise ResidencyError(f"no component {name!r} to borrow; there are {known}")
        plan = self._executing
        if plan is None:
            plan = self.plan(self._components[self.adapted].once)
            self._make_room(plan, name)
        with self._components[name].run(plan.components[name]) as run, run.phase(0, kind) as it:
            yield it

    @contextmanager
    def recording(self) -> Iterator[Record]:
        """Record what happens within, for a trace."""
        buffers = [
            BufferState(name, buffer.key, buffer.content, buffer.memory.nbytes, buffer.pinned)
            for name, held in self._components.items()
            for buffer in held.pool
        ]
        record = Record(self.adapted, self._components[self.adapted].blocks, buffers)
        self._recorder.start(record)
        try:
            yield record
        finally:
            self._recorder.stop()

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit: the host memory that loading may take beyond the plan."""
        return max(held.largest_unit for held in self._components.values())

    def residency(self) -> list[Row]:
        """Where every byte of weights is now."""
        return [
            row
            for name, held in self._components.items()
            for row in residency_rows(name, held.pool, held.pool.peer_copies.rows)
        ]

    def release(self) -> None:
        """Return all memory to the backend, which another manager may then use."""
        for held in self._components.values():
            held.close()

    def close(self) -> None:
        """Free all memory, and close the backend."""
        self.release()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_room(self, plan: ManagerPlan, wanted: str) -> None:
        """Free what the other components hold by an earlier configuration."""
        for name, held in self._components.items():
            if name not in (wanted, self.adapted):
                held.make_room(plan.components[name])

    def _plan(
        self, phases: tuple[WeightPhase, ...], lent: Mapping[str, WeightSet], wanted: Residency
    ) -> ManagerPlan:
        return ManagerPlan(
            {
                name: held.make_plan(
                    phases if name == self.adapted else held.phases(lent),
                    resolve_policy(name, name == self.adapted, wanted),
                )
                for name, held in self._components.items()
            },
            tuple(self._concurrent_uses),
            self.adapted,
            wanted,
        )
