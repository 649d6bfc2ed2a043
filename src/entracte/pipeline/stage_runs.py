"""Stages as they are entered: reported, traced, and lent what they use."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from torch import nn

from entracte.progress import Reporter
from entracte.residency import DeviceManager
from entracte.stages import Stage
from entracte.trace.trace import Trace

M = TypeVar("M", bound=nn.Module)


class Loans:
    """The components on loan to a stage, by their class."""

    def __init__(self, stage: Stage, components: Mapping[str, nn.Module]) -> None:
        self._stage = stage
        self._components = components

    def __getitem__(self, kind: type[M]) -> M:
        for component in self._components.values():
            if isinstance(component, kind):
                return component
        raise TypeError(f"the stage {self._stage.name!r} does not use a {kind.__name__}")


class StageRuns:
    """Enters the stages of one run."""

    def __init__(self, manager: DeviceManager, trace: Trace, reporter: Reporter) -> None:
        self._manager = manager
        self._trace = trace
        self._reporter = reporter

    @contextmanager
    def enter(self, stage: Stage, steps: int = 0) -> Iterator[Loans]:
        """Report a stage, trace it, and borrow what it uses."""
        with self.note(stage, steps), ExitStack() as loans:
            yield self.borrow(stage, loans)

    @contextmanager
    def note(self, stage: Stage, steps: int = 0) -> Iterator[None]:
        """Report a stage, and trace it."""
        if stage.label:
            self._reporter.stage(stage.name, steps)
        with self._trace.stage(stage.name, stage.on_host):
            yield

    def borrow(self, stage: Stage, loans: ExitStack) -> Loans:
        borrow = self._manager.borrow
        return Loans(
            stage, {name: loans.enter_context(borrow(name, nn.Module)) for name in stage.uses}
        )
