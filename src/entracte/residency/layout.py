"""How a component's tensors lie in memory: one contiguous buffer for every unit.

A *unit* is one block, or, as the last unit, everything outside the blocks. Within a unit matrices
come first, in the module's order, so that queries', keys' and values' weights are neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from entracte.errors import ResidencyError

from .merge import Change
from .spec import AdapterSource, TensorSpec

# What kernels may expect of a tensor's address, in bytes.
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a unit, at `start` bytes; tied weights are one tensor with several names."""

    names: tuple[str, ...]
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """The tensors of one unit and their places; `nbytes` is a multiple of the alignment."""

    entries: tuple[Entry, ...]
    nbytes: int

    @classmethod
    def of(
        cls, tensors: Sequence[tuple[tuple[str, ...], TensorSpec]], at_least: int = 0
    ) -> "UnitLayout":
        """Lay tensors out one after another, in so many bytes at least."""
        entries, end = [], 0
        for names, spec in tensors:
            entries.append(Entry(names, end, spec.dtype, spec.shape))
            end += -(-spec.nbytes // ALIGNMENT) * ALIGNMENT
        return cls(tuple(entries), max(end, at_least))

    def views(self, memory: Tensor) -> dict[str, Tensor]:
        """Every tensor by each of its names, as views of flat uint8 memory."""
        found = {}
        for entry, view in zip(self.entries, self.first_views(memory), strict=True):
            found.update(dict.fromkeys(entry.names, view))
        return found

    def first_views(self, memory: Tensor) -> list[Tensor]:
        """Every tensor once, in order, as views of flat uint8 memory."""
        return [
            memory[entry.start : entry.start + entry.nbytes].view(entry.dtype).view(entry.shape)
            for entry in self.entries
        ]

    def clear_padding(self, memory: Tensor) -> None:
        """Write zeros between the tensors, so that equal weights are equal memory."""
        for entry in self.entries:
            end = entry.start + entry.nbytes
            memory[end : end + -end % ALIGNMENT].zero_()


def lay_out(
    module: nn.Module, specs: Mapping[str, TensorSpec], blocks: str | None
) -> tuple[UnitLayout, ...]:
    """The layouts of all blocks, and of the rest as the last; raises ResidencyError.

    specs: the tensors that the module has from its sources. Other buffers are its own affair.
    """
    count = block_count(module, blocks)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tied: dict[int, list[str]] = {}
    for name, tensor in [*parameters.items(), *module.named_buffers(remove_duplicate=False)]:
        tied.setdefault(id(tensor), []).append(name)
        _check_tensor(name, tensor, specs.get(name), name in parameters)
    units: list[list[tuple[tuple[str, ...], TensorSpec]]] = [[] for _ in range(count + 1)]
    for names in tied.values():
        held = [name for name in names if name in specs]
        if not held:
            if names[0] in parameters:
                raise ResidencyError(f"no source holds the parameter {names[0]}")
            continue
        homes = {unit_of(name, blocks, count) for name in names}
        if len(homes) > 1:
            raise ResidencyError(f"{' and '.join(names)} are tied across blocks")
        first = (held[0], *(name for name in names if name != held[0]))
        units[homes.pop()].append((first, specs[held[0]]))
    for unit in units:
        unit.sort(key=lambda tensor: len(tensor[1].shape) != 2)  # stable: the order else stays
    # Even an empty unit gets memory, because buffers are identified by address.
    return tuple(UnitLayout.of(unit, at_least=ALIGNMENT) for unit in units)


def computed_parts(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The tensors that are computed with of some parameters, by their names."""
    return {
        name + end: part
        for name, spec in specs.items()
        for end, part in spec.computed_parts.items()
    }


def as_stored(layout: UnitLayout, specs: Mapping[str, TensorSpec]) -> UnitLayout:
    """The same parameters as they are stored, in the same order.

    The layout itself, where all are stored as they are computed with.
    """
    # An entry that is no parameter's name belongs to one before it.
    parameters = [entry for entry in layout.entries if entry.names[0] in specs]
    if all(specs[entry.names[0]].used_as_stored for entry in parameters):
        return layout
    parts = [
        (tuple(name + end for name in entry.names), part)
        for entry in parameters
        for end, part in specs[entry.names[0]].parts.items()
    ]
    return UnitLayout.of(parts, at_least=ALIGNMENT)


def _check_tensor(name: str, tensor: Tensor, spec: TensorSpec | None, is_parameter: bool) -> None:
    if spec is not None and spec.shape != tuple(tensor.shape):
        raise ResidencyError(
            f"{name} is {list(tensor.shape)} in the module and {list(spec.shape)} in its source"
        )
    if spec is None and tensor.is_meta and not is_parameter:
        raise ResidencyError(
            f"the buffer {name} is on the meta device and no source holds it: build it on its own"
        )


def block_count(module: nn.Module, blocks: str | None) -> int:
    """The number of blocks; 0 for a module in one piece."""
    if blocks is None:
        return 0
    found = module.get_submodule(blocks)
    if not isinstance(found, nn.ModuleList):
        raise ResidencyError(f"{blocks} is a {type(found).__name__}; blocks must be a ModuleList")
    return len(found)


def unit_of(name: str, blocks: str | None, count: int) -> int:
    """The unit that a parameter or module belongs to, by its name."""
    if blocks is not None and name.startswith(f"{blocks}."):
        return int(name.removeprefix(f"{blocks}.").split(".", 1)[0])
    return count


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """One adapter's changes: where they are read from, and how each unit's lie in a buffer.

    names: of every unit, the parameters that it changes.
    """

    source: AdapterSource
    names: tuple[tuple[str, ...], ...]
    layouts: tuple[UnitLayout, ...]

    @classmethod
    def of(cls, source: AdapterSource, blocks: str | None, count: int) -> "AdapterLayout":
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
            layouts.append(UnitLayout.of(parts))
        return cls(source, tuple(map(tuple, units)), tuple(layouts))

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """Raise ResidencyError where a change is of no parameter, or of one with another shape."""
        for name, change in self.source.changes.items():
            if name not in specs:
                raise ResidencyError(f"an adapter changes {name}, which is not a parameter")
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
