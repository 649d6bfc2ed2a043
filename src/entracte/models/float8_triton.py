"""Quantising rows to float8 in Triton: one pass over memory, with the bits of torch's operators."""

import triton
import triton.language as tl
from torch import Tensor

# Of a row that does not fit into one program's registers, so much is read at a time.
COLUMNS = 4096
WARPS = 8
STATIC_BLOCK = 4096


@triton.jit
def scale_of(largest):  # type: ignore[no-untyped-def]
    """The smallest power of two by which a row's largest number fits, and what it is divided by."""
    bits = (tl.maximum(largest, 1e-30) * (1.0 / 448.0)).to(tl.int32, bitcast=True)
    exponent = (bits + 0x7FFFFF) >> 23
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    return scale, inverse


@triton.jit
def to_float8(x, inverse):  # type: ignore[no-untyped-def]
    """x, float32, times a factor, cut off where float8_e4m3fn ends."""
    scaled = tl.minimum(tl.maximum(x * inverse, -448.0), 448.0)
    return scaled.to(tl.float8e4nv)


@triton.jit  # type: ignore[untyped-decorator]
def _rows_kernel(x, numbers, scales, width, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One row of [rows, width], which is read once more where it is longer than COLUMNS."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    first = tl.load(x + row * width + columns, mask=columns < width, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(first), 0)
    for start in range(COLUMNS, width, COLUMNS):
        inside = start + columns < width
        more = tl.load(x + row * width + start + columns, mask=inside, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.max(tl.abs(more), 0))
    scale, inverse = scale_of(largest)
    tl.store(scales + row, scale)
    tl.store(numbers + row * width + columns, to_float8(first, inverse), mask=columns < width)
    for start in range(COLUMNS, width, COLUMNS):
        inside = start + columns < width
        more = tl.load(x + row * width + start + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(numbers + row * width + start + columns, to_float8(more, inverse), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _by_kernel(x, scale, numbers, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inverse = tl.div_rn(1.0, tl.load(scale))
    values = tl.load(x + places, mask=places < count, other=0.0).to(tl.float32)
    tl.store(numbers + places, to_float8(values, inverse), mask=places < count)


def quantise_rows(x: Tensor, numbers: Tensor, scales: Tensor) -> None:
    """Write the rows of x, and a scale for each; see `float8.quantise_rows`."""
    x, width = x.contiguous(), x.shape[-1]
    columns = min(COLUMNS, triton.next_power_of_2(width))
    warps = max(1, min(WARPS, columns // 512))
    _rows_kernel[(x.numel() // width,)](x, numbers, scales, width, COLUMNS=columns, num_warps=warps)


def quantise_by(x: Tensor, scale: Tensor, numbers: Tensor) -> None:
    """Write x times the inverse of a scale; see `float8.quantise_by`."""
    x = x.contiguous()
    grid = (triton.cdiv(x.numel(), STATIC_BLOCK),)
    _by_kernel[grid](x, scale, numbers, x.numel(), BLOCK=STATIC_BLOCK, num_warps=8)
