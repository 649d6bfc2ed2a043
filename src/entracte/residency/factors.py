"""The factors of adapters, unit by unit."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.errors import ResidencyError

from .component import TensorSpec
from .layout import Layout, unit_of
from .merge import Factors


@dataclass(frozen=True, slots=True)
class AdapterFactors:
    """One adapter's factors: where they are read from, and how each unit's lie in an arena.

    modules: of every unit, the names of the modules that it changes.
    """

    source: Mapping[str, Factors]
    modules: tuple[tuple[str, ...], ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def of(
        cls,
        source: Mapping[str, Factors],
        dtypes: Mapping[str, torch.dtype | None],
        blocks: str | None,
        count: int,
    ) -> "AdapterFactors":
        """Sort factors by unit.

        dtypes: of the modules' weights; factors are held in the same. None: in their own.
        """
        units: list[list[str]] = [[] for _ in range(count + 1)]
        for name in source:
            if name not in dtypes:
                raise ResidencyError(f"an adapter changes {name}, which has no weight")
            units[unit_of(name, blocks, count)].append(name)
        layouts = []
        for names in units:
            tensors: list[tuple[tuple[str, ...], TensorSpec]] = []
            for name in names:
                for part, tensor in _parts(source[name]):
                    spec = TensorSpec(dtypes[name] or tensor.dtype, tuple(tensor.shape))
                    tensors.append(((f"{name}.{part}",), spec))
            layouts.append(Layout.of(tensors))
        return cls(source, tuple(map(tuple, units)), tuple(layouts))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of every unit's factors."""
        return tuple(layout.nbytes for layout in self.layouts)

    def read(self, unit: int, memory: Tensor) -> None:
        """Write a unit's factors into host memory."""
        views = self.layouts[unit].views(memory)
        for name in self.modules[unit]:
            for part, tensor in _parts(self.source[name]):
                views[f"{name}.{part}"].copy_(tensor)

    def views(self, unit: int, memory: Tensor) -> dict[str, Factors]:
        """A unit's factors in an arena, by module."""
        views = self.layouts[unit].views(memory)
        return {
            name: Factors(views[f"{name}.down"], views[f"{name}.up"], self.source[name].scale)
            for name in self.modules[unit]
        }


def _parts(factors: Factors) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("down", factors.down), ("up", factors.up)
