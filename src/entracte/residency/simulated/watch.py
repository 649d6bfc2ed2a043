"""Watches what module code does to the memory of the simulated accelerator."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .machine import Machine
from .memory import Allocation

# Of these the tensors that they are given matter only by their shape, type and device.
_UNREAD = ("aten::new_", "prim::")
_UNREAD_NAMES = frozenset(
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like"),
        *("rand_like", "randn_like", "randint_like"),
        *("set_", "set_data", "resize_", "_has_compatible_shallow_copy_type", "is_same_size"),
        *("size", "sym_size", "stride", "sym_stride", "numel", "sym_numel"),
    )
)


class ModuleWatch(TorchDispatchMode):
    """Reports tensor operations on the machine's memory to it. May be entered repeatedly."""

    def __init__(self, machine: Machine) -> None:
        TorchDispatchMode.__init__(self)
        self._machine = machine
        self._depth = 0
        self._written: dict[Any, frozenset[int | str] | None] = {}

    def __enter__(self) -> "ModuleWatch":
        self._depth += 1
        if self._depth == 1:
            TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            TorchDispatchMode.__exit__(self, *exception)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Check the operation, and execute it unchanged."""
        kwargs = kwargs or {}
        if self._machine.own_work:
            return func(*args, **kwargs)
        touched = self._touched(func, args, kwargs)
        if not (touched and isinstance(func, torch._ops.OpOverload) and func.is_view):
            for memory, writes in touched:
                self._machine.module_touches(memory, writes)
            return func(*args, **kwargs)
        # Some operations, such as reshape, make a view only where they can, and else a copy.
        result = func(*args, **kwargs)
        viewed = {each.untyped_storage().data_ptr() for each in _tensors(result)}
        for memory, writes in touched:
            if memory.address not in viewed:
                self._machine.module_touches(memory, writes)
        return result

    def _touched(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> list[tuple[Allocation, bool]]:
        """The memory that an operation reads or (true) writes, as far as it is the machine's."""
        if func not in self._written:
            self._written[func] = _written_arguments(func)
        written = self._written[func]
        if written is None:
            return []
        return [
            (memory, key in written)
            for key, value in (*enumerate(args), *kwargs.items())
            for tensor in _tensors(value)
            if (memory := self._machine.memory.find(tensor)) is not None
        ]


def _written_arguments(func: Callable[..., Any]) -> frozenset[int | str] | None:
    """The positions and names of arguments that an operation writes; None if it touches none."""
    if not isinstance(func, torch._ops.OpOverload):
        return frozenset()
    schema = func._schema
    if schema.name.startswith(_UNREAD) or schema.name in _UNREAD_NAMES:
        return None
    return frozenset(
        key
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for key in (position, argument.name)
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """All strided tensors in an argument or a result."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
