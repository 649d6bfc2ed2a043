"""Modules bound to buffers: the same code, over whichever memory holds its weights.

One is made for every buffer that a unit may be in, once. Handing a unit's weights to the compute
stream is then a choice between them; no parameter is rebound.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from entracte.errors import ResidencyError

from .buffer import Buffer
from .buffer_key import BufferKey
from .layout import Layout
from .unmerged import Unmerged, adapt


class ReadyBlocks(nn.Module):
    """Stands where a module's list of blocks was; iterating over it is a sweep.

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
            raise ResidencyError("blocks come from first to last; single ones cannot be had")
        return self


class BoundModule:
    """A unit's module, and its tensors, which are views of one memory at a time."""

    def __init__(self, module: nn.Module, memory: Tensor, layout: Layout) -> None:
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
        """Let go of the memory; what still uses the module finds no weights."""
        empty = {view.dtype: view.new_empty(0) for view in self._views}
        for tensor, view in zip(self.tensors, self._views, strict=True):
            tensor.data = empty[view.dtype]
        self.memory = None


class BoundModules:
    """Makes and keeps the bound modules of one component.

    template: the component without weights; it is copied, which is quicker than building it anew.
    """

    def __init__(
        self,
        template: nn.Module,
        layouts: tuple[Layout, ...],
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
        """Let go of a buffer whose memory is about to be given back."""
        for key, bound in self._bound.items():
            if key[0] == buffer.key and bound.memory is not None:
                bound.unbind()

    def drop_variants(self) -> None:
        """Forget modules with unmerged adapters, whose factors are about to go."""
        for key in [key for key in self._bound if key[2] is not None]:
            del self._bound[key]

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
