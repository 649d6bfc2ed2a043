"""A linear that is quick in bfloat16 on every CPU."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W^T + b, summed in float32 and rounded once.

    A CPU without matrix instructions (AMX) multiplies bfloat16 at half the rate of float32, so
    there the product is made in float32: the same sums of the same products, in half the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.bfloat16 or x.device.type != "cpu" or has_matrix_instructions():
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self.weight.float(), bias).to(x.dtype)


@lru_cache(maxsize=1)
def has_matrix_instructions() -> bool:
    """Whether this machine's CPU multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
