"""Copies to memory of several GPUs, beside products."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def copies_kernel(  # type: ignore[no-untyped-def]
    x,  # [copies, rows, tokens, width], of any strides but the last
    copy_step,
    row_step,
    token_step,
    addresses,  # of the copies, each [rows, tokens, width] of the strides below but the last
    row_stride,
    token_stride,
    copies,
    rows,
    tokens,
    width,
    TOKENS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    ALIGNED: tl.constexpr,  # noqa: N803
):
    """Each x[i] to its address, by however few programs. ALIGNED: bytes, of every token there."""
    groups = tl.cdiv(tokens, TOKENS)
    column = tl.arange(0, WIDTH)[None, :]
    for piece in range(tl.program_id(0), copies * rows * groups, tl.num_programs(0)):
        # One copy after the other, so that all links are busy.
        copy, place = piece % copies, piece // copies
        row = (place // groups).to(tl.int64)
        token = ((place % groups) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None]
        inside = (token < tokens) & (column < width)
        from_x = x + copy.to(tl.int64) * copy_step + row * row_step
        values = tl.load(from_x + token * token_step + column, mask=inside)
        to = tl.load(addresses + copy).to(tl.pointer_type(x.dtype.element_ty))
        to += row * row_stride + token * token_stride + column
        tl.store(tl.multiple_of(to, [1, ALIGNED]), values, mask=inside)
