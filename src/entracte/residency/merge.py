"""Merging low-rank adapters into a weight: one function, one rounding, for every caller."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """One adapter's factors for one weight [out, in]: down [rank, in] and up [out, rank].

    scale: alpha / rank where the adapter has an alpha, else 1.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0


def merge(weight: Tensor, adapters: Sequence[tuple[Factors, float]]) -> Tensor:
    """Weight + sum of strength * up @ down, in the official rounding; `weight` is untouched.

    Each product is rounded to the weight's dtype, the products are summed in it, and the sum is
    added to the weight in it: with bfloat16 the result equals the official merge bit for bit.
    """
    delta: Tensor | None = None
    for factors, strength in adapters:
        up = factors.up.to(weight.device, weight.dtype) * (strength * factors.scale)
        product = up @ factors.down.to(weight.device, weight.dtype)
        delta = product if delta is None else delta + product
    return weight.clone() if delta is None else weight + delta
