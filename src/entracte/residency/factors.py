"""The tensors of adapters' changes, unit by unit."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from entracte.errors import ResidencyError

from .adapters import AdapterSource
from .component import TensorSpec
from .layout import Layout, unit_of
from .merge import Change


@dataclass(frozen=True, slots=True)
class AdapterFactors:
    """One adapter's changes: where they are read from, and how each unit's lie in a buffer.

    names: of every unit, the parameters that it changes.
    """

    source: AdapterSource
    names: tuple[tuple[str, ...], ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def of(cls, source: AdapterSource, blocks: str | None, count: int) -> "AdapterFactors":
        """Sort changes by unit.

        Tensors are held in the file's dtype, for the rounding of a merge depends on it.
        """
        units: list[list[str]] = [[] for _ in range(count + 1)]
        changes = source.changes
        for name in changes:
            units[unit_of(name, blocks, count)].append(name)
        layouts = []
        for names in units:
            parts = [
                ((f"{name}.{part}",), TensorSpec(tensor.dtype, tuple(tensor.shape)))
                for name in names
                for part, tensor in changes[name].tensors.items()
            ]
            layouts.append(Layout.of(parts))
        return cls(source, tuple(map(tuple, units)), tuple(layouts))

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """Raise ResidencyError where a change is of no parameter, or of one with another shape."""
        for name, change in self.source.changes.items():
            if name not in specs:
                raise ResidencyError(f"an adapter changes {name}, which is no parameter")
            if change.shape != specs[name].shape:
                raise ResidencyError(
                    f"an adapter changes {name} as if it were {list(change.shape)}; it is "
                    f"{list(specs[name].shape)}"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of every unit's tensors."""
        return tuple(layout.nbytes for layout in self.layouts)

    def read(self, unit: int, memory: Tensor) -> None:
        """Write a unit's tensors into host memory."""
        views = self.layouts[unit].views(memory)
        for name in self.names[unit]:
            for part in self.source.changes[name].tensors:
                self.source.read(name, part, views[f"{name}.{part}"])

    def views(self, unit: int, memory: Tensor) -> dict[str, Change]:
        """A unit's changes in a buffer, by parameter."""
        views = self.layouts[unit].views(memory)
        found = {}
        for name in self.names[unit]:
            change = self.source.changes[name]
            found[name] = change.over({part: views[f"{name}.{part}"] for part in change.tensors})
        return found
