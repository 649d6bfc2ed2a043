"""The device manager: decides where every component's weights are, and lends its modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from torch import nn

from entracte.errors import ResidencyError

from .backend import Backend
from .budget import ManagerPlan, Moment, check_budgets
from .component import ComponentSpec
from .held import HeldComponent
from .journal import ComponentJournal, Journal, Record
from .merge import Changes
from .modes import Residency, holding
from .report import Row, residency_rows
from .run import ComponentRun
from .stores import HostBudget
from .weights import ReadFactors, WeightPhase

M = TypeVar("M", bound=nn.Module)


def no_adapters(name: str) -> Changes:
    """For components that have none."""
    raise ResidencyError(f"no adapter {name!r}: this manager was made without adapters")


class DeviceManager:
    """Holds components as `wanted` says. One user at a time; close it when done.

    adapted: the component that has several weight sets; mode and dials are its.
    read_factors: what an adapter changes in it, by the adapter's name.
    moments: which components are on loan together (default: one at a time).
    """

    def __init__(
        self,
        specs: Sequence[ComponentSpec],
        backend: Backend,
        wanted: Residency,
        *,
        adapted: str | None = None,
        read_factors: ReadFactors = no_adapters,
        moments: Sequence[Moment] | None = None,
    ) -> None:
        self.backend = backend
        self.adapted = specs[0].name if adapted is None else adapted
        names = [spec.name for spec in specs]
        self._moments = moments or [Moment(frozenset([name])) for name in names]
        self._in_request = False
        self._journal = Journal(backend)
        self._budget = HostBudget()
        self._components = {
            spec.name: HeldComponent(
                spec,
                backend,
                self._budget,
                read_factors,
                backend.copies if spec.name == self.adapted else backend.loans,
                ComponentJournal(self._journal, spec.name),
            )
            for spec in specs
        }
        self.configure(wanted)

    def configure(self, wanted: Residency) -> None:
        """Hold weights in another way from the next loan on; raises ResidencyError.

        What is in memory is moved rather than read again, where there is room for it.
        """
        for name in wanted.places:
            if name not in self._components:
                known = ", ".join(self._components)
                raise ResidencyError(f"no component {name!r} to place; there are {known}")
        holdings = {name: holding(name, name == self.adapted, wanted) for name in self._components}
        for name, held in self._components.items():
            held.make_plan(held.once, holdings[name])
        self._holdings = holdings
        self.wanted = wanted
        self._budget.set_limits(wanted.host_memory, wanted.pinned_memory)

    def plan(self, phases: Sequence[WeightPhase]) -> ManagerPlan:
        """How all components would be held for these phases of the adapted one.

        Raises BudgetError, naming what would fit, and ResidencyError.
        """
        plan = self._plan(tuple(phases), self.wanted)
        check_budgets(plan, self.wanted, lambda wanted: self._plan(tuple(phases), wanted))
        return plan

    @contextmanager
    def request(self, phases: Sequence[WeightPhase]) -> Iterator[ComponentRun]:
        """The adapted component's way through its phases; other components may be borrowed within.

        Raises BudgetError before anything is allocated, OutOfMemory, and DeviceFault, after which
        the manager is of no more use.
        """
        plan = self.plan(phases)
        self._make_room(plan, self.adapted)
        with self._components[self.adapted].run(plan.components[self.adapted]) as run:
            self._in_request = True
            try:
                yield run
            finally:
                self._in_request = False

    @contextmanager
    def borrow(self, name: str, kind: type[M]) -> Iterator[M]:
        """A component with one weight set, for the duration of a stage. `kind` is its class.

        Raises BudgetError before anything is allocated, OutOfMemory, and DeviceFault.
        """
        if name not in self._components:
            known = ", ".join(self._components)
            raise ResidencyError(f"no component {name!r} to borrow; there are {known}")
        if not self._in_request:
            self._make_room(self.plan(self._components[self.adapted].once), name)
        held = self._components[name]
        with (
            held.run(held.make_plan(held.once, self._holdings[name])) as run,
            run.phase(0, kind) as it,
        ):
            yield it

    @contextmanager
    def recording(self, with_blocks: bool = False) -> Iterator[Record]:
        """What happens within, for a trace; with_blocks: the run of every block too."""
        arenas = {name: held.stores for name, held in self._components.items()}
        record = Record(self.adapted, self._components[self.adapted].blocks)
        self._journal.start(record, arenas, with_blocks)
        try:
            yield record
        finally:
            self._journal.stop()

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit: what loading may take of host memory beyond the plan."""
        return max(held.largest_unit for held in self._components.values())

    def residency(self) -> list[Row]:
        """Where every byte of weights is now."""
        return [
            row
            for name, held in self._components.items()
            for row in residency_rows(name, held.stores)
        ]

    def release(self) -> None:
        """Give all memory back to the backend, which may be used by another manager then."""
        for held in self._components.values():
            held.close()

    def close(self) -> None:
        """Give all memory back, and close the backend."""
        self.release()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_room(self, plan: ManagerPlan, wanted: str) -> None:
        """Have the other components give up what they held by an earlier configuration."""
        for name, held in self._components.items():
            if name not in (wanted, self.adapted):
                held.make_room(plan.components[name])

    def _plan(self, phases: tuple[WeightPhase, ...], wanted: Residency) -> ManagerPlan:
        return ManagerPlan(
            {
                name: held.make_plan(
                    phases if name == self.adapted else held.once,
                    holding(name, name == self.adapted, wanted),
                )
                for name, held in self._components.items()
            },
            tuple(self._moments),
            self.adapted,
        )
