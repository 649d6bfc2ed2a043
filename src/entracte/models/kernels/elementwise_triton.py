"""The elementwise work of a block in Triton: one pass over memory for each operation.

Every intermediate that torch's operators would round is rounded here. Triton must not fuse a
product with a sum (`enable_fp_fusion=False`): it would fold a rounding to bfloat16 and back.
Sums of squares are in this file's order, which is the same for every batch and number of tokens,
as one program sums one token.
"""

import triton
import triton.language as tl

from entracte.models.float8_triton import scale_of, to_float8

# What every kernel is launched with. A condition that is known when a kernel is compiled stands
# apart from one that is not: Triton would evaluate both.
EXACT = {"enable_fp_fusion": False}


@triton.jit  # type: ignore[untyped-decorator]
def _row_and_timestep(numbers, tokens, NUMBERED: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """The program's row of [rows * tokens, width], and its token's timestep."""
    row = tl.program_id(0)
    if NUMBERED:
        return row, tl.load(numbers + row % tokens)
    return row, 0


@triton.jit
def _modulated(  # type: ignore[no-untyped-def]
    normed,
    scale,
    shift,
    timestep,
    stride,
    columns,
    inside,
):
    """normed * (1 + scale) + shift, each step rounded to the dtype of `normed`."""
    dtype = normed.dtype
    by = tl.load(scale + timestep * stride + columns, mask=inside, other=0.0).to(tl.float32)
    by = (1.0 + by).to(dtype)
    product = (normed.to(tl.float32) * by.to(tl.float32)).to(dtype)
    add = tl.load(shift + timestep * stride + columns, mask=inside, other=0.0)
    return (product.to(tl.float32) + add.to(tl.float32)).to(dtype)


@triton.jit  # type: ignore[untyped-decorator]
def _store_row(  # type: ignore[no-untyped-def]
    out,
    scales,
    row,
    width,
    columns,
    inside,
    values,
    FLOAT8: tl.constexpr,  # noqa: N803
):
    """Store one row of [rows, width] as it is, or in float8 with its scale."""
    to = row * width + columns
    if FLOAT8:
        wide = tl.where(inside, values.to(tl.float32), 0.0)
        scale, inverse = scale_of(tl.max(tl.abs(wide), 0))
        tl.store(scales + row, scale)
        tl.store(out + to, to_float8(wide, inverse), mask=inside)
    else:
        tl.store(out + to, values, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def gelu_kernel(x, out, scales, width, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """GELU by tanh of a row, rounded, then in float8."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    inside = columns < width
    values = tl.load(x + row * width + columns, mask=inside, other=0.0)
    wide = values.to(tl.float32)
    # As 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), which takes a third of a tanh's time.
    inner = 0.7978845608028654 * (wide + 0.044715 * (wide * wide * wide))
    made = (wide / (1.0 + tl.exp(-2.0 * inner))).to(values.dtype)
    _store_row(out, scales, row, width, columns, inside, made, True)


@triton.jit  # type: ignore[untyped-decorator]
def modulated_kernel(x, scale, shift, out, width, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """x * (1 + scale) + shift of [rows, width], the same scale and shift for all rows."""
    columns = tl.arange(0, COLUMNS)
    inside = columns < width
    here = tl.program_id(0).to(tl.int64) * width + columns
    values = tl.load(x + here, mask=inside, other=0.0)
    tl.store(out + here, _modulated(values, scale, shift, 0, 0, columns, inside), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def modulated_norm_kernel(  # type: ignore[no-untyped-def]
    x,
    update,  # [rows - update_first, tokens, width]
    gate,
    gate_stride,
    gate_numbers,
    update_first,  # in rows * tokens
    out,  # [rows - first, tokens, width]
    out_scales,  # of its rows, where it is in float8
    scale,
    shift,
    second_out,
    second_out_scales,
    second_scale,
    second_shift,
    stride,  # of scale and shift, from timestep to timestep
    second_stride,
    numbers,
    first,  # in rows * tokens
    tokens,
    width,
    eps,
    UPDATED: tl.constexpr,  # noqa: N803
    GATE_NUMBERED: tl.constexpr,  # noqa: N803
    NUMBERED: tl.constexpr,  # noqa: N803
    OUTPUTS: tl.constexpr,  # noqa: N803
    FLOAT8: tl.constexpr,  # noqa: N803
    SECOND_FLOAT8: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """x += update * gate; then, for up to two modulations, the modulated RMS norm of x."""
    row, timestep = _row_and_timestep(numbers, tokens, NUMBERED)
    row = row.to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    inside = columns < width
    here = row * width + columns
    values = tl.load(x + here, mask=inside, other=0.0)
    dtype = values.dtype
    if UPDATED:  # noqa: SIM102
        if row >= update_first:
            gate_timestep = 0
            if GATE_NUMBERED:
                gate_timestep = tl.load(gate_numbers + row % tokens)
            there = (row - update_first) * width + columns
            added = tl.load(update + there, mask=inside, other=0.0).to(tl.float32)
            by = tl.load(gate + gate_timestep * gate_stride + columns, mask=inside, other=0.0)
            product = (added * by.to(tl.float32)).to(dtype)
            values = (values.to(tl.float32) + product.to(tl.float32)).to(dtype)
            tl.store(x + here, values, mask=inside)
    if OUTPUTS > 0:  # noqa: SIM102
        if row >= first:
            wide = values.to(tl.float32)
            mean = tl.sum(wide * wide, 0) / width
            normed = (wide * tl.rsqrt(mean + eps)).to(dtype)
            to = row - first
            made = _modulated(normed, scale, shift, timestep, stride, columns, inside)
            _store_row(out, out_scales, to, width, columns, inside, made, FLOAT8)
            if OUTPUTS > 1:
                made = _modulated(
                    normed, second_scale, second_shift, timestep, second_stride, columns, inside
                )
                _store_row(
                    second_out,
                    second_out_scales,
                    to,
                    width,
                    columns,
                    inside,
                    made,
                    SECOND_FLOAT8,
                )


@triton.jit  # type: ignore[untyped-decorator]
def normed_heads_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows, tokens, heads * 2 * half]
    weight,
    cos,  # [tokens, heads, half]
    sin,
    out,  # [rows, tokens, heads, 2 * half] in parts, heads after heads within one; may be x
    addresses,  # of the parts
    row_stride,
    token_stride,
    part_stride,
    tokens,
    heads,
    eps,
    PART: tl.constexpr,  # noqa: N803
    ADDRESSED: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    HALVES: tl.constexpr,  # noqa: N803
    ROTATED: tl.constexpr,  # noqa: N803
    ALIGNED: tl.constexpr,  # noqa: N803
):
    """RMS norm with a weight; then the halves of each head rotate against each other.

    ALIGNED: bytes, of where each half of a head is in the parts.
    """
    row = tl.program_id(0)
    head = tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, HALVES)[None, :]
    inside = (head < heads) & (place < HALF)
    columns = head * (2 * HALF) + place
    start = x + row.to(tl.int64) * (heads * 2 * HALF)
    first = tl.load(start + columns, mask=inside, other=0.0)
    second = tl.load(start + columns + HALF, mask=inside, other=0.0)
    dtype = first.dtype
    wide_first, wide_second = first.to(tl.float32), second.to(tl.float32)
    squares = tl.sum(wide_first * wide_first + wide_second * wide_second)
    inverse = tl.rsqrt(squares / (heads * 2 * HALF) + eps)
    weight_first = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    weight_second = tl.load(weight + columns + HALF, mask=inside, other=0.0).to(tl.float32)
    first = (wide_first * inverse * weight_first).to(dtype)
    second = (wide_second * inverse * weight_second).to(dtype)
    if ROTATED:
        angles = (row % tokens) * (heads * HALF) + head * HALF + place
        by_cos = tl.load(cos + angles, mask=inside, other=0.0).to(tl.float32)
        by_sin = tl.load(sin + angles, mask=inside, other=0.0).to(tl.float32)
        wide_first, wide_second = first.to(tl.float32), second.to(tl.float32)
        # As torch's mul and addcmul: the first product is rounded, the second one is not.
        first = (wide_first * by_cos).to(dtype).to(tl.float32)
        first = tl.fma(-wide_second, by_sin, first).to(dtype)
        second = (wide_second * by_cos).to(dtype).to(tl.float32)
        second = tl.fma(wide_first, by_sin, second).to(dtype)
    number = head // PART
    if ADDRESSED:
        at = tl.load(addresses + number, mask=head < heads, other=0)
        to = at.to(tl.pointer_type(dtype))
    else:
        to = out + number * part_stride
    to += (row // tokens).to(tl.int64) * row_stride + (row % tokens).to(tl.int64) * token_stride
    to += (head % PART) * (2 * HALF) + place
    if ADDRESSED:
        to = tl.multiple_of(to, [1, ALIGNED])  # which an address in a table does not tell
    tl.store(to, first, mask=inside)
    tl.store(to + HALF, second, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def gated_heads_kernel(  # type: ignore[no-untyped-def]
    attended,  # [attending rows, tokens, parts, heads, head_dim], of any strides but the last
    row_stride,
    token_stride,
    part_stride,
    head_stride,
    kept,  # [further rows, tokens, heads * head_dim]
    kept_first,  # where they begin in out, in numbers
    gates,  # [rows, tokens, heads]
    out,  # [rows, tokens, heads * head_dim]
    scales,  # of its rows, where it is in float8
    attending,
    tokens,
    heads,
    PART: tl.constexpr,  # noqa: N803
    HEAD_DIM: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    PLACES: tl.constexpr,  # noqa: N803
    KEPT: tl.constexpr,  # noqa: N803
    FLOAT8: tl.constexpr,  # noqa: N803
):
    """Heads times their gates, from where attention left them."""
    program = tl.program_id(0)
    row, token = (program // tokens).to(tl.int64), program % tokens
    head = tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, PLACES)[None, :]
    inside = (head < heads) & (place < HEAD_DIM)
    here = program.to(tl.int64) * (heads * HEAD_DIM) + head * HEAD_DIM + place
    from_attention = row * row_stride + token * token_stride + place
    from_attention += (head // PART) * part_stride + (head % PART) * head_stride
    if KEPT:
        if row >= attending:
            values = tl.load(kept + here - kept_first, mask=inside, other=0.0)
        else:
            values = tl.load(attended + from_attention, mask=inside, other=0.0)
    else:
        values = tl.load(attended + from_attention, mask=inside, other=0.0)
    by = tl.load(gates + program.to(tl.int64) * heads + head, mask=head < heads, other=0.0)
    scaled = (values.to(tl.float32) * by.to(tl.float32)).to(values.dtype)
    if FLOAT8:
        wide = tl.where(inside, scaled.to(tl.float32), 0.0)
        scale, inverse = scale_of(tl.max(tl.max(tl.abs(wide), 1), 0))
        tl.store(scales + program, scale)
        tl.store(out + here, to_float8(wide, inverse), mask=inside)
    else:
        tl.store(out + here, scaled, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def head_gates_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows * tokens, width]
    weight,  # [heads, width]
    bias,  # [heads]
    x_scales,  # [rows * tokens], where both are in float8
    weight_scales,  # [heads] or [1]
    scale_stride,  # 1 or 0
    out,  # [rows * tokens, heads]
    count,  # rows * tokens
    heads,
    width,
    TOKENS: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    FLOAT8: tl.constexpr,  # noqa: N803
):
    """2 * sigmoid(x weight^T + bias), each step rounded; the product is summed in float32."""
    first = tl.program_id(0).to(tl.int64) * TOKENS
    token = first + tl.arange(0, TOKENS)[:, None]
    head = tl.arange(0, HEADS)
    depth = tl.arange(0, DEPTH)
    total = tl.zeros([TOKENS, HEADS], tl.float32)
    for start in range(0, width, DEPTH):
        inside = start + depth < width
        left = tl.load(
            x + token * width + (start + depth)[None, :],
            mask=(token < count) & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            weight + head[None, :] * width + (start + depth)[:, None],
            mask=(head < heads)[None, :] & inside[:, None],
            other=0.0,
        )
        if FLOAT8:  # whose numbers are also those of float16
            left, right = left.to(tl.float16), right.to(tl.float16)
        total = tl.dot(left, right, total, input_precision="ieee")
    dtype = out.dtype.element_ty
    if FLOAT8:
        by_token = tl.load(x_scales + token, mask=token < count, other=0.0)
        by_head = tl.load(weight_scales + head * scale_stride, mask=head < heads, other=0.0)
        total = total * (by_token * by_head[None, :])
    add = tl.load(bias + head, mask=head < heads, other=0.0).to(tl.float32)
    logits = (total + add[None, :]).to(dtype).to(tl.float32)
    gates = (1.0 / (1.0 + tl.exp(-logits))).to(dtype)
    gates = (gates.to(tl.float32) * 2.0).to(dtype)
    tl.store(
        out + token * heads + head[None, :], gates, mask=(token < count) & (head < heads)[None, :]
    )
