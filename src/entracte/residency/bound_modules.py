"""Modules bound to buffers: the same code, over whichever memory holds its weights.

Every buffer that a unit may be in gets its own copy of the unit's module. Handing weights to the
compute stream is then a lookup (1 µs). One copy per unit would have to rebind its parameters for
every slot (30 to 50 µs, 48 times a step), and one per slot would require blocks without state of
their own. For the full-size transformer in mode fused the copies take about 35 MB.
"""

import copy
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn

from entracte.errors import ResidencyError

from .buffer import Buffer
from .buffer_key import BufferKey
from .layout import UnitLayout
from .unmerged import Unmerged, adapt


class ReadyBlocks(nn.Module):
    """Replaces a module's list of blocks; iterating over it is a sweep.

    sweep: yields the blocks from first to last, each ready to compute.
    """

    def __init__(self, count: int, sweep: Callable[[], Iterator[nn.Module]]) -> None:
        super().__init__()
        self._count = count
        self._sweep = sweep

    def __iter__(self) -> Iterator[nn.Module]:
        return self._sweep()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: slice) -> "ReadyBlocks":
        """All blocks; they come in order only."""
        if not isinstance(index, slice) or range(self._count)[index] != range(self._count):
            raise ResidencyError("blocks can only be iterated from first to last, not indexed")
        return self


class BoundModule:
    """A unit's module, and its tensors, which are views of one memory at a time."""

    def __init__(self, module: nn.Module, memory: Tensor, layout: UnitLayout) -> None:
        self.module = module
        self.tensors: list[Tensor] = []  # in the layout's order
        self.memory: Tensor | None = memory
        self._layout = layout
        self._views_of = memory
        self._views = layout.first_views(memory)

    @torch.inference_mode(False)
    def bind(self, memory: Tensor) -> None:
        """Make all tensors views of some memory, quickly if it is the same as before."""
        if self._views_of is not memory:
            self._views_of, self._views = memory, self._layout.first_views(memory)
        for tensor, view in zip(self.tensors, self._views, strict=True):
            tensor.data = view
        self.memory = memory

    @torch.inference_mode(False)
    def unbind(self) -> None:
        """Let go of the memory; code that still uses the module finds no weights."""
        empty = {view.dtype: view.new_empty(0) for view in self._views}
        for tensor, view in zip(self.tensors, self._views, strict=True):
            tensor.data = empty[view.dtype]
        self.memory = None


class BoundModules:
    """Makes and keeps the bound modules of one component.

    template: the component without weights; copying it is quicker than building it again.
    """

    def __init__(
        self,
        template: nn.Module,
        layouts: tuple[UnitLayout, ...],
        blocks: str | None,
        sweep: Callable[[], Iterator[nn.Module]],
    ) -> None:
        self._template = template
        self._layouts = layouts
        self._blocks = blocks
        self._sweep = sweep
        self._bound: dict[tuple[BufferKey, int, object], BoundModule] = {}

    def get(
        self,
        buffer: Buffer,
        unit: int,
        variant: object = None,
        unmerged: Callable[[], Unmerged] = dict,
    ) -> nn.Module:
        """A unit's module over a buffer; the last unit's is the component itself.

        variant: tells modules with different `unmerged` adapters apart.
        """
        key = (buffer.key, unit, variant)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._make(buffer.memory, unit, unmerged())
        elif bound.memory is not buffer.memory:
            bound.bind(buffer.memory)
        return bound.module

    def unbind(self, buffer: Buffer) -> None:
        """Let go of a buffer whose memory is about to be freed."""
        for key, bound in self._bound.items():
            if key[0] == buffer.key and bound.memory is not None:
                bound.unbind()

    def keep(self, buffers: Collection[BufferKey]) -> None:
        """Drop all modules but those over these buffers, and those with unmerged adapters."""
        self._bound = {
            (key, unit, variant): bound
            for (key, unit, variant), bound in self._bound.items()
            if key in buffers and variant is None
        }

    @torch.inference_mode(False)
    def _make(self, memory: Tensor, unit: int, unmerged: Unmerged) -> BoundModule:
        layout, prefix = self._layouts[unit], ""
        if unit < len(self._layouts) - 1:
            prefix = f"{self._blocks}.{unit}."
            module = copy.deepcopy(self._template.get_submodule(prefix[:-1]))
        else:
            ready: dict[int, nn.Module] = {}  # what the copy has in the place of what
            if self._blocks is not None:
                blocks = self._template.get_submodule(self._blocks)
                ready[id(blocks)] = ReadyBlocks(len(self._layouts) - 1, self._sweep)
            module = copy.deepcopy(self._template, ready)
        bound = BoundModule(module, memory, layout)
        for entry, view in zip(layout.entries, layout.first_views(memory), strict=True):
            parameter = nn.Parameter(view, requires_grad=False)
            for name in entry.names:
                tensor = _bind(module, name.removeprefix(prefix), parameter, view)
            bound.tensors.append(tensor)
        adapt(module, prefix, unmerged)
        module.eval().requires_grad_(False)
        return bound


def _bind(module: nn.Module, name: str, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in dict(owner.named_parameters(recurse=False)):
        owner.register_parameter(leaf, parameter)
        return parameter
    owner.register_buffer(leaf, tensor)
    return tensor
