"""What a computation takes, found without running it: its arithmetic and its peak memory.

Modules run on the meta device, where tensors have sizes and no contents, along the paths that they
take on a GPU: attention and RMS norm as one kernel each, with no copies in between.
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

from .meta_ops import META, QUICK


@dataclass(frozen=True, slots=True)
class Metered:
    """flops: of matrix products, convolutions and attention. nbytes: the most in use at once.

    of_linears: of the flops, those of linears.
    exchanges, exchanged: how often tensors were exchanged with other devices, and the bytes that
        were sent to them.
    """

    flops: int
    nbytes: int
    exchanges: int = 0
    exchanged: int = 0
    of_linears: int = 0


def meter(compute: Callable[[], object]) -> Metered:
    """Run a computation on meta tensors. What exists already, such as weights, does not count."""
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

    flops, of_linears, exchanges, exchanged: so far, as in `Metered`. now: bytes in use. peak: the
        most so far,
        which may be set back to `now`.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.flops = 0
        self.of_linears = 0
        self.exchanges = 0
        self.exchanged = 0
        self.now = 0
        self.peak = 0
        # Much quicker than to enter the mode itself, which takes every function apart.
        self._formulas = FlopCounterMode(display=False).flop_registry
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch's default wraps the method below for its compiler, which takes seconds to import.
        return False

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
        quick = QUICK.get(func)
        out = None if quick is None else quick(*args, **named)
        if out is None:
            out = func(*args, **named)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=out)
        if func.is_view:
            return out
        given: set[int] | None = None
        for tensor in [out] if isinstance(out, Tensor) else _tensors([out]):
            storage = tensor.untyped_storage()
            if not tensor.is_meta or id(storage) in self._live:
                continue
            if given is None:  # what was there before, and results in place
                given = {id(t.untyped_storage()) for t in _tensors([*args, *named.values()])}
            if id(storage) not in given:
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        nbytes, key = storage.nbytes(), id(storage)
        self.now += nbytes
        self.peak = max(self.peak, self.now)

        def remove(_: object) -> None:
            self.now -= nbytes
            del self._live[key]

        # Much quicker than a finalizer of `weakref`, which is also kept for the end of the process.
        self._live[key] = weakref.ref(storage, remove)


def _written(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """The tensor that an elementwise operation only writes to; the operation need not be run."""
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
    """Replaces functions that ask where a tensor is, and those that a GPU has one kernel for."""

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
                return self._attention(*args, **given)
            if func is F.linear and args[0].is_contiguous():
                return self._linear(*args, **given)
        return func(*args, **given)

    def _linear(self, x: Tensor, weight: Tensor, _bias: Tensor | None = None) -> Tensor:
        # The same as what torch finds, many times sooner.
        flops = 2 * x.numel() * weight.shape[0]
        self._counts.flops += flops
        self._counts.of_linears += flops
        return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=META)

    def _attention(
        self,
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
            # The kernel reads every head of keys for several of queries, and copies none.
            k, v = (x[:, :1].expand(-1, q.shape[1], -1, -1) for x in (k, v))
        if attn_mask is not None:
            return _masked_attention(q, k, v, attn_mask, dropout_p, is_causal, scale)
        rows, heads, asking, dim = q.shape
        self._counts.flops += 2 * rows * heads * asking * k.shape[2] * (dim + v.shape[3])
        # Flash attention's result is laid out as the models' heads are.
        out = torch.empty((rows, asking, heads, v.shape[3]), dtype=q.dtype, device=META)
        log_sums = torch.empty((rows, heads, asking), dtype=torch.float32, device=META)
        del log_sums
        return out.transpose(1, 2)


def _rms_norm(x: Tensor) -> Tensor:
    # The kernel's second result, which is dropped when it has run.
    inverse = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=META)
    out = torch.empty_like(x)
    del inverse
    return out


def _masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    dropout: float,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Flash attention takes no mask, and a boolean one becomes a bias first."""
    bias = mask if mask.is_floating_point() else torch.empty_like(mask, dtype=q.dtype)
    bias = bias.expand(*q.shape[:3], k.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    out: Tensor = efficient(q, k, v, bias, False, dropout, causal, scale=scale)[0]
    return out
