"""Weights in float8 without scales: what is stored are the numbers themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.models.transformer.linear import Linear, quicker_in_float32


@dataclass(frozen=True, slots=True)
class Float8:
    """A float8 dtype. All its numbers are numbers of bfloat16 too, so that expanding is exact."""

    dtype: torch.dtype

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def elementwise(self) -> bool:
        return True

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out`, in its dtype."""
        # On a GPU `out.copy_` takes 1.8 times as long for float8, to the same bits.
        torch._foreach_copy_([out], [stored[""]])

    def linear(self, plain: nn.Linear) -> nn.Linear:
        """A linear like a plain one that keeps its weight in float8."""
        return Float8Linear(plain, self.dtype)


class Float8Linear(Linear):
    """x W^T + b with W in float8, which is widened to the dtype of x at every use."""

    def __init__(self, plain: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.weight = nn.Parameter(self.weight.to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        if quicker_in_float32(x):
            return super().forward(x)
        return F.linear(x, self.weight.to(x.dtype), self.bias)
