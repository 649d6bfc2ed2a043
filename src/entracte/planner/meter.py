"""What a computation takes, found without making it: its arithmetic, and its memory at the most.

Modules run on the meta device, where tensors have sizes and no contents, and take the ways that
they would take on a GPU: attention and RMS norm as one kernel each, with no copies in between.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Metered:
    """flops: of matrix products, convolutions and attention. nbytes: in use at once at the most."""

    flops: int
    nbytes: int


def meter(compute: Callable[[], object]) -> Metered:
    """Run a computation on meta tensors. What it finds there already, such as weights, is free."""
    with counting() as counts:
        compute()
    return Metered(counts.flops, counts.peak)


@contextmanager
def counting() -> Iterator["Counts"]:
    """Count what is computed on meta tensors, as if they were on a GPU."""
    counts = Counts()
    with torch.no_grad(), counts, _GpuFunctions(counts):
        yield counts


class Counts(TorchDispatchMode):
    """Counts operations by torch's own formulas, and the bytes of storages on the meta device.

    A storage counts once, whatever views there are of it, until its last tensor is gone. What was
    there before does not count, and what a kernel allocates for itself is not seen.

    flops: so far. now: bytes in use. peak: the most so far, which may be set back to `now`.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.flops = 0
        self.now = 0
        self.peak = 0
        # Much quicker than to enter the mode itself, which takes every function apart.
        self._formulas = FlopCounterMode(display=False).flop_registry
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            # No contents: a mask does not let everything through, and no number is infinite.
            return False
        written = _written(func, args, named)
        if written is not None:
            return written
        out = func(*args, **named)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=out)
        given: set[int] | None = None
        for tensor in _tensors([out]):
            storage = tensor.untyped_storage()
            if not tensor.is_meta or id(storage) in self._known:
                continue
            if given is None:  # views of what was there before, and results in place
                given = {id(t.untyped_storage()) for t in _tensors([*args, *named.values()])}
            if id(storage) not in given:
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        nbytes = storage.nbytes()
        self.now += nbytes
        self.peak = max(self.peak, self.now)
        self._known.add(id(storage))
        weakref.finalize(storage, self._remove, id(storage), nbytes)

    def _remove(self, key: int, nbytes: int) -> None:
        self.now -= nbytes
        self._known.remove(key)


def _written(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """The tensor that an elementwise operation only writes to, which need not be carried out."""
    if torch.Tag.pointwise not in func.tags:
        return None
    found = named.get("out")
    if found is None and func._schema.name.endswith("_"):
        found = args[0]
    return found if isinstance(found, Tensor) and found.is_meta else None


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


class _GpuFunctions(TorchFunctionMode):
    """Stands in for the functions that ask where a tensor is, or that a GPU has a kernel for."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return args[0].is_meta
        if func is torch.Tensor.cpu and args[0].is_meta:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is F.rms_norm:
                return _rms_norm(args[0])
            if func is F.scaled_dot_product_attention:
                return _attention(*args, **given)
            if func is F.linear and args[0].is_contiguous():
                return self._linear(*args, **given)
        return func(*args, **given)

    def _linear(self, x: Tensor, weight: Tensor, _bias: Tensor | None = None) -> Tensor:
        # Torch's own way comes to the same, and takes many times as long.
        self._counts.flops += 2 * x.numel() * weight.shape[0]
        return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _rms_norm(x: Tensor) -> Tensor:
    # The kernel's second result, while it runs.
    inverse = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=META)
    out = torch.empty_like(x)
    del inverse
    return out


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        raise NotImplementedError("no model here has attention with fewer keys' heads")
    if attn_mask is None:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        out: Tensor = flash(q, k, v, dropout_p, is_causal, scale=scale)[0]
        return out
    # A mask is not for flash attention. A boolean one becomes a bias first.
    bias = (
        attn_mask if attn_mask.is_floating_point() else torch.empty_like(attn_mask, dtype=q.dtype)
    )
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    bias = bias.expand(*q.shape[:3], k.shape[2])
    masked: Tensor = efficient(q, k, v, bias, False, dropout_p, is_causal, scale=scale)[0]
    return masked
