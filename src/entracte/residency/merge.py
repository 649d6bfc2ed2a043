"""What an adapter does to one parameter, and how that is merged: one rounding for every caller.

An adapter is a mapping from parameter names (`blocks.0.attn1.to_q.weight`, `….bias`) to changes, at
most one for a parameter. There are five kinds; with s = strength * scale they add

    Factors    s * up @ down                               LoRA
    Full       s * diff                                    a full difference; of weights and biases
    Hadamard   s * (a1 @ b1) * (a2 @ b2), elementwise      LoHa
    Kronecker  s * kron(first, second)                     LoKr
    Dora       strength * (m * V / ||V|| - W)              DoRA, with V = W + another change

to a weight W. Tensors are as they are in the file: in its dtype (floating point), on the CPU, or on
the meta device where only sizes are wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """Low rank: down [rank, in] and up [out, rank].

    scale: alpha / rank (alpha / sqrt(rank) for rsLoRA) where the adapter has an alpha, else 1.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By part."""
        return {"down": self.down, "up": self.up}

    def over(self, tensors: Mapping[str, Tensor]) -> "Factors":
        """The same change, with its tensors in other memory."""
        return Factors(tensors["down"], tensors["up"], self.scale)

    @property
    def flops(self) -> int:
        """Floating-point operations of merging it."""
        return 2 * self.down.numel() * self.up.shape[0]


@dataclass(frozen=True, slots=True)
class Full:
    """A difference of the parameter's own shape."""

    diff: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        return tuple(self.diff.shape)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By part."""
        return {"diff": self.diff}

    def over(self, tensors: Mapping[str, Tensor]) -> "Full":
        """The same change, with its tensors in other memory."""
        return Full(tensors["diff"], self.scale)

    @property
    def flops(self) -> int:
        """Floating-point operations of merging it."""
        return 2 * self.diff.numel()


@dataclass(frozen=True, slots=True)
class Hadamard:
    """The elementwise product of two low-rank ones: a1, a2 [out, rank] and b1, b2 [rank, in].

    scale: alpha / rank where the adapter has an alpha, else 1. In files a1 is `hada_w1_a`, and so
    on. The two ranks may differ.
    """

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        return self.a1.shape[0], self.b1.shape[1]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By part."""
        return {"a1": self.a1, "b1": self.b1, "a2": self.a2, "b2": self.b2}

    def over(self, tensors: Mapping[str, Tensor]) -> "Hadamard":
        """The same change, with its tensors in other memory."""
        return Hadamard(tensors["a1"], tensors["b1"], tensors["a2"], tensors["b2"], self.scale)

    @property
    def flops(self) -> int:
        """Floating-point operations of merging it."""
        out, inputs = self.shape
        return 2 * out * inputs * (self.a1.shape[1] + self.a2.shape[1])


@dataclass(frozen=True, slots=True)
class Kronecker:
    """The Kronecker product of two matrices, each given whole (one tensor) or as (a, b) for a @ b.

    first: [out1, in1] and second: [out2, in2] change a weight [out1 * out2, in1 * in2].
    scale: alpha / rank where the adapter has an alpha and either matrix has a rank, else 1: that of
    two whole matrices means nothing.
    """

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        rows = self.first[0].shape[0] * self.second[0].shape[0]
        return rows, self.first[-1].shape[1] * self.second[-1].shape[1]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By part."""
        return {
            f"{name}{number}": tensor
            for name, matrix in (("first", self.first), ("second", self.second))
            for number, tensor in enumerate(matrix)
        }

    def over(self, tensors: Mapping[str, Tensor]) -> "Kronecker":
        """The same change, with its tensors in other memory."""
        first, second = (
            tuple(tensors[f"{name}{number}"] for number in range(len(matrix)))
            for name, matrix in (("first", self.first), ("second", self.second))
        )
        return Kronecker(first, second, self.scale)

    @property
    def flops(self) -> int:
        """Floating-point operations of merging it."""
        products = (
            2 * matrix[0].numel() * matrix[1].shape[1]
            for matrix in (self.first, self.second)
            if len(matrix) == 2
        )
        out, inputs = self.shape
        return 2 * out * inputs + sum(products)


@dataclass(frozen=True, slots=True)
class Dora:
    """A change whose result is given another magnitude: m * V / ||V||, with V = W + change.

    change: at its own scale and strength 1. magnitude: [out] or [out, 1], of every row, as peft and
    most trainers have it; or [1, in], of every column (LyCORIS with `wd_on_output` off).
    Between strength 0, which is W, and 1, which is DoRA as trained, it is interpolated.
    """

    change: "Factors | Hadamard | Kronecker"
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        return self.change.shape

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By part."""
        return {**self.change.tensors, "magnitude": self.magnitude}

    def over(self, tensors: Mapping[str, Tensor]) -> "Dora":
        """The same change, with its tensors in other memory."""
        return Dora(self.change.over(tensors), tensors["magnitude"])

    @property
    def by_row(self) -> bool:
        """Whether magnitudes are of rows; else of columns."""
        return self.magnitude.ndim == 1 or tuple(self.magnitude.shape) == (self.shape[0], 1)

    @property
    def flops(self) -> int:
        """Floating-point operations of merging it."""
        out, inputs = self.shape
        return self.change.flops + 6 * out * inputs


Change = Factors | Full | Hadamard | Kronecker | Dora

# An adapter: what it does to every parameter that it changes, by the parameter's name.
Changes = Mapping[str, Change]


@dataclass(frozen=True, slots=True)
class WeightMerge:
    """One merge: `out` becomes `weight` with the adapters, each at its strength, merged in.

    out: of the weight's shape and dtype; it may be the weight itself.
    """

    weight: Tensor
    out: Tensor
    adapters: tuple[tuple[Change, float], ...]

    def carry_out(self) -> None:
        """See `merge`."""
        merge(self.weight, self.adapters, self.out)


def merge(
    weight: Tensor, adapters: Sequence[tuple[Change, float]], out: Tensor | None = None
) -> Tensor:
    """Weight + the sum of what adapters add, in the official rounding, into `out` or a new tensor.

    With bfloat16 weights the result of low-rank changes equals the official merge bit for bit:

        D  = bf16((up * s) @ down)      of the first, in the file's dtype, as `up * s` is
        D  = bf16(D + s * up @ down)    of every further one, rounded once (addmm)
        W' = bf16(W + D)

    The official implementation knows no alpha: an adapter's scale is part of s. The other kinds are
    computed in float32, and enter D in the same places. For float32 weights all is float32.
    """
    out = torch.empty_like(weight) if out is None else out
    total: Tensor | None = None
    for change, strength in adapters:
        total = _added(total, weight, change, strength)
    return out.copy_(weight) if total is None else torch.add(weight, total, out=out)


def _added(total: Tensor | None, weight: Tensor, change: Change, strength: float) -> Tensor:
    """The sum of changes so far and one more, in the weight's dtype; None is a sum of none."""
    if isinstance(change, Factors):
        return _product_added(total, weight, change, strength)
    delta = _delta(change, weight, strength)
    return (delta if total is None else total + delta).to(weight.dtype)


def _product_added(
    total: Tensor | None, weight: Tensor, factors: Factors, strength: float
) -> Tensor:
    by = strength * factors.scale
    dtype = _dtype_of_products(factors, weight.dtype)
    if total is None:
        up, down = (each.to(weight.device, dtype) for each in (factors.up, factors.down))
        return ((up * by) @ down).to(weight.dtype)
    if weight.is_cuda:
        # In bfloat16 cuBLAS would round the product before it is added.
        dtype = torch.promote_types(dtype, torch.float32)
    elif dtype != weight.dtype:
        dtype = torch.promote_types(dtype, weight.dtype)
    up, down = (each.to(weight.device, dtype) for each in (factors.up, factors.down))
    return torch.addmm(total.to(dtype), up, down, alpha=by).to(weight.dtype)


def _dtype_of_products(factors: Factors, weight: torch.dtype) -> torch.dtype:
    """The file's; the weight's where that is float32, or where the file's cannot be computed in."""
    file = torch.promote_types(factors.up.dtype, factors.down.dtype)
    return weight if weight.itemsize > 2 or file.itemsize == 1 else file


def _delta(change: Change, weight: Tensor, strength: float) -> Tensor:
    """What a change adds to a weight: in float32, or the weight's dtype where that is wider."""
    dtype = torch.promote_types(weight.dtype, torch.float32)

    def wide(tensor: Tensor) -> Tensor:
        return tensor.to(weight.device, dtype)

    match change:
        case Factors(down, up, scale):
            return (wide(up) * (strength * scale)) @ wide(down)
        case Full(diff, scale):
            return wide(diff) * (strength * scale)
        case Hadamard(a1, b1, a2, b2, scale):
            return (wide(a1) @ wide(b1)).mul_(wide(a2) @ wide(b2)).mul_(strength * scale)
        case Kronecker(first, second, scale):
            matrices = (
                wide(matrix[0]) if len(matrix) == 1 else wide(matrix[0]) @ wide(matrix[1])
                for matrix in (first, second)
            )
            return torch.kron(*matrices).mul_(strength * scale)
        case Dora(inner, magnitude):
            base = wide(weight)
            changed = _delta(inner, weight, 1.0).add_(base)
            rows = change.by_row
            wanted = wide(magnitude).view(-1, 1) if rows else wide(magnitude).view(1, -1)
            norm = torch.linalg.vector_norm(changed, dim=1 if rows else 0, keepdim=True)
            # A row of zeros has no direction, and stays one.
            by = torch.where(norm > 0, wanted / norm, 0.0)
            return changed.mul_(by).sub_(base).mul_(strength)
