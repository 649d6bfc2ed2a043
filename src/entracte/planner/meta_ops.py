"""What torch's operators return on the meta device, many times sooner than torch finds out.

Torch derives the results of most operators on meta tensors in Python, from decompositions that
cover cases which do not occur here. For the operators that the models' loops consist of, the result
takes a line or two. Each function returns None for arguments that it does not cover; torch is asked
then.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

META = torch.device("meta")

aten = torch.ops.aten


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _empty_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_contiguous():
        return _empty(x.shape, dtype)
    return torch.empty_like(x, dtype=dtype)


def _elementwise(*operands: Any, **options: Any) -> Tensor | None:
    """Of tensors of one floating-point dtype, and numbers."""
    if options and not options.keys() <= {"alpha"}:
        return None
    tensors = [each for each in operands if isinstance(each, Tensor)]
    first, *others = tensors
    dtype, shape = first.dtype, first.shape
    if not (dtype.is_floating_point and first.is_meta):
        return None
    for each in others:
        if each.dtype != dtype or not each.is_meta:
            return None
        if each.shape != shape:
            shape = _broadcast(shape, each.shape)
    for each in tensors:
        if each.shape == shape:
            return _empty_like(each, dtype)
    return _empty(shape, dtype)


def _broadcast(one: Sequence[int], other: Sequence[int]) -> torch.Size:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    before = len(longer) - len(shorter)
    sizes = [b if a == 1 else a for a, b in zip(longer[before:], shorter, strict=True)]
    return torch.Size([*longer[:before], *sizes])


def _gelu_in_place(x: Tensor, **_approximate: str) -> Tensor | None:
    return x if x.is_meta else None


def _cast(x: Tensor, **options: Any) -> Tensor | None:
    given = [name for name, value in options.items() if value is not None and value is not False]
    return _empty_like(x, options["dtype"]) if x.is_meta and given == ["dtype"] else None


def _allocate(shape: Sequence[int], **options: Any) -> Tensor | None:
    if options.get("dtype") is None or options.get("device") != META:
        return None
    return _empty(shape, options["dtype"])


def _allocate_like(x: Tensor, **options: Any) -> Tensor | None:
    given = any(options.get(name) is not None for name in ("device", "layout", "memory_format"))
    if given or not (x.is_meta and x.is_contiguous()):
        return None
    return _empty(x.shape, options.get("dtype") or x.dtype)


def _count(end: Any, **options: Any) -> Tensor | None:
    return _allocate([end], **options) if isinstance(end, int) else None


def _concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    for each in tensors:
        if not (each.is_meta and each.is_contiguous()):
            return None
        if each.dtype != first.dtype or each.dim() != first.dim():
            return None
    shape = list(first.shape)
    shape[dim] = sum(each.shape[dim] for each in tensors)
    return _empty(shape, first.dtype)


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    for each in tensors:
        if not (each.is_meta and each.dtype == first.dtype and each.shape == first.shape):
            return None
    shape = list(first.shape)
    shape.insert(dim if dim >= 0 else dim + len(shape) + 1, len(tensors))
    return _empty(shape, first.dtype)


def _deviation(x: Tensor, dim: Sequence[int] | None = None, **options: Any) -> Tensor | None:
    """Of a whole tensor, one number."""
    if dim or options.get("keepdim") or not (x.is_meta and x.dtype.is_floating_point):
        return None
    return _empty((), x.dtype)


def _layer_norm(
    x: Tensor, normed: Sequence[int], *_weight_bias_eps: Any
) -> tuple[Tensor, ...] | None:
    """With the mean and the inverse deviation that the kernel leaves."""
    if not (x.is_meta and x.is_contiguous()):
        return None
    shape = [*x.shape[: -len(normed)], *(1 for _ in normed)]
    mean, inverse = (_empty(shape, torch.float32) for _ in range(2))
    return _empty(x.shape, x.dtype), mean, inverse


QUICK: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        aten.add.Tensor: _elementwise,
        aten.sub.Tensor: _elementwise,
        aten.mul.Tensor: _elementwise,
        aten.div.Tensor: _elementwise,
        aten.exp.default: _elementwise,
        aten.cos.default: _elementwise,
        aten.sin.default: _elementwise,
        aten.silu.default: _elementwise,
        aten.sigmoid.default: _elementwise,
        aten.gelu_.default: _gelu_in_place,
        aten._to_copy.default: _cast,
        aten.empty.memory_format: _allocate,
        aten.empty_like.default: _allocate_like,
        aten.arange.default: _count,
        aten.cat.default: _concatenate,
        aten.stack.default: _stack,
        aten.std.correction: _deviation,
        aten.native_layer_norm.default: _layer_norm,
    }
)
