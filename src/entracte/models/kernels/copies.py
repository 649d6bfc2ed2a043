"""Copies to memory of several GPUs, beside products."""

import triton
from torch import Tensor

from entracte.models.transformer import HeadRoom

from .copies_triton import copies_kernel

# Numbers that a program copies at once: 32 kB of bfloat16, on their way while the next are read.
NUMBERS = 16384


def copy_to(x: Tensor, to: HeadRoom, programs: int) -> None:
    """Copy x [parts, rows, tokens, width] to parts [rows, tokens, width] in all, or wider ones that
    have addresses.

    programs: the more, the quicker, until the link is busy, and the less is left for what the GPU
    does beside.
    """
    copies, rows, tokens, width = x.shape
    part = to.parts[0]
    wide = triton.next_power_of_2(width)
    copies_kernel[(programs,)](
        x,
        *x.stride()[:3],
        to.addresses,
        *part.stride()[:2],
        copies,
        rows,
        tokens,
        width,
        TOKENS=max(1, NUMBERS // wide),
        WIDTH=wide,
        ALIGNED=to.aligned(width),
        num_warps=16,
    )
