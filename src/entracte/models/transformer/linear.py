"""Linears and attention that are fast in bfloat16 on every CPU.

A CPU without instructions for it (AMX, AVX512-BF16) multiplies bfloat16 at half the rate of
float32, so there they are computed in float32.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to this many queries, the length of a text context, attention takes little time. It then keeps
# the official rounding, in which attention weights are bfloat16.
SHORT_ATTENTION = 1024


class Linear(nn.Linear):
    """x W^T + b, accumulated in float32 and rounded once, however it is computed.

    takes_float8: whether x may be `Float8Rows`.
    """

    takes_float8 = False

    def forward(self, x: Tensor) -> Tensor:
        if not quicker_in_float32(x):
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self.weight.float(), bias).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention; all tensors and the result are [rows, heads, tokens, head_dim].

    bias: [queries, keys], of their dtype, is added to every head's products.
    """
    if q.shape[2] <= SHORT_ATTENTION or not quicker_in_float32(q):
        return F.scaled_dot_product_attention(q, k, v, bias)
    bias = None if bias is None else bias.float()
    return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), bias).to(q.dtype)


def quicker_in_float32(x: Tensor) -> bool:
    """Whether this machine multiplies x faster after widening it to float32."""
    return x.dtype is torch.bfloat16 and x.device.type == "cpu" and not multiplies_bfloat16()


@lru_cache(maxsize=1)
def multiplies_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 in hardware."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16", False) or has.get("avx512_bf16", False))
