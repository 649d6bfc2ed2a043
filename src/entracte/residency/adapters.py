"""Where adapters come from: what they change, and how their tensors are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from entracte.errors import ResidencyError

from .merge import Changes


class AdapterSource(Protocol):
    """What one adapter does to one component. It never changes: other numbers are another adapter.

    changes: by parameter. Only their sizes are looked at, so their tensors may be on the meta
    device; the numbers are read once for every place that a plan holds them at.
    """

    @property
    def changes(self) -> Changes: ...

    def read(self, parameter: str, part: str, out: Tensor) -> None:
        """Write one tensor of a change into `out`, host memory of its shape and dtype.

        parameter, part: its keys in `changes` and in the change's `tensors`.
        """


# An adapter for a component, by the names of both.
OpenAdapter = Callable[[str, str], AdapterSource]


@dataclass(frozen=True, slots=True)
class MemoryAdapter:
    """An adapter whose tensors are in memory already, or views of a mapped file."""

    changes: Changes

    def read(self, parameter: str, part: str, out: Tensor) -> None:
        out.copy_(self.changes[parameter].tensors[part])


def in_memory(changes: Callable[[str], Changes]) -> OpenAdapter:
    """Adapters of one component whose tensors are in memory; `changes` finds them by name."""
    return lambda _, name: MemoryAdapter(changes(name))


def no_adapters(component: str, name: str) -> AdapterSource:
    """For components that have none."""
    raise ResidencyError(
        f"no adapter {name!r} of {component}: this manager was made without adapters"
    )
