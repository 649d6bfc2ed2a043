"""Merging low-rank adapters into a weight: one function, one rounding, for every caller."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """One adapter's factors for one weight [out, in]: down [rank, in] and up [out, rank].

    scale: alpha / rank where the adapter has an alpha, else 1.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class WeightMerge:
    """One merge: `out` becomes `weight` with the adapters, each at its strength, merged in.

    out: of the weight's shape and dtype; it may be the weight itself.
    """

    weight: Tensor
    out: Tensor
    adapters: tuple[tuple[Factors, float], ...]


def merge(
    weight: Tensor, adapters: Sequence[tuple[Factors, float]], out: Tensor | None = None
) -> Tensor:
    """Weight + sum of strength * up @ down, in the official rounding, into `out` or a new tensor.

    Each product is rounded to the weight's dtype, the products are summed in it, and the sum is
    added to the weight in it: with bfloat16 the result equals the official merge bit for bit.
    """
    out = torch.empty_like(weight) if out is None else out
    delta: Tensor | None = None
    for factors, strength in adapters:
        up = factors.up.to(weight.device, weight.dtype) * (strength * factors.scale)
        product = up @ factors.down.to(weight.device, weight.dtype)
        delta = product if delta is None else delta + product
    return out.copy_(weight) if delta is None else torch.add(weight, delta, out=out)
