"""Numbers in float8 with a scale for every row: x = number * scale, what products in float8 take.

Scales are powers of two: dividing by one is exact, and what was quantised once is not changed by
being quantised again. In a floating-point format that costs nothing but half of its range.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0

# Of GPUs that multiply in float8: Ada, Hopper and what follows.
CAPABILITY = (8, 9)

# cuBLAS and CUTLASS multiply in float8 by so many inputs and outputs.
PRODUCT_MULTIPLE = 16

# Of a row of zeros, in place of its largest number.
SMALLEST = 1e-30


@dataclass(frozen=True, slots=True)
class Float8Rows:
    """Rows in float8.

    numbers: [..., columns] float8_e4m3fn. scales: float32, [..., 1], or [] for all rows.
    """

    numbers: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.numbers.shape

    def __getitem__(self, part: slice) -> "Float8Rows":
        """Some of the first dimension."""
        return Float8Rows(
            self.numbers[part], self.scales[part] if self.scales.ndim else self.scales
        )


# What a linear takes.
Activations = Tensor | Float8Rows


def scales_of(largest: Tensor) -> Tensor:
    """The smallest power of two by which a row's largest number fits, float32 of the same shape."""
    bits = (largest.float().clamp_min(SMALLEST) * (1 / LARGEST)).view(torch.int32)
    return (((bits + 0x7FFFFF) >> 23) << 23).view(torch.float32)


def quantise_rows(x: Tensor) -> Float8Rows:
    """x [..., columns] with a scale for every row."""
    out = Float8Rows(
        torch.empty(x.shape, dtype=FLOAT8, device=x.device),
        torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device),
    )
    _write_rows(x, out.numbers, out.scales)
    return out


def quantise_by(x: Tensor, scale: Tensor) -> Float8Rows:
    """x with a scale that is known before: numbers beyond the format's are cut off.

    scale: [] float32.
    """
    out = torch.empty(x.shape, dtype=FLOAT8, device=x.device)
    _write_by(x, scale, out)
    return Float8Rows(out, scale)


def _write_rows(x: Tensor, numbers: Tensor, scales: Tensor) -> None:
    """numbers: of the shape of x. scales: one for every row, of any shape."""
    fused = _kernels() if x.is_cuda else None
    if fused is not None:
        fused.quantise_rows(x, numbers, scales)
        return
    found = scales_of(x.abs().amax(-1, keepdim=True))
    numbers.copy_((x.float() * (1 / found)).clamp_(-LARGEST, LARGEST))
    scales.copy_(found.view(scales.shape))


def _write_by(x: Tensor, scale: Tensor, numbers: Tensor) -> None:
    fused = _kernels() if x.is_cuda else None
    if fused is not None:
        fused.quantise_by(x, scale, numbers)
        return
    numbers.copy_((x.float() * scale.reciprocal()).clamp_(-LARGEST, LARGEST))


def product(x: Float8Rows, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: [..., in] -> [..., out] bfloat16, summed in float32 and rounded once.

    weight: [out, in] float8_e4m3fn; scale: [] or [out] float32.
    On a GPU sums are those of its tensor cores, which for float8 keep fewer bits than float32.
    """
    shape = (*x.shape[:-1], len(weight))
    if not weight.is_cuda:
        by = x.scales * (scale if scale.numel() == 1 else scale.view(-1))
        whole = F.linear(x.numbers.float(), weight.float()).mul_(by)
        return (whole if bias is None else whole.add_(bias)).to(torch.bfloat16)
    flat = x.numbers.reshape(-1, x.shape[-1])
    of_rows, of_columns = x.scales, scale
    if x.scales.ndim or scale.numel() > 1:  # both have to be by row
        of_rows = x.scales.expand(*x.shape[:-1], 1).reshape(-1, 1).contiguous()
        of_columns = scale.view(1, -1).expand(1, len(weight)).contiguous()
    out = torch._scaled_mm(
        flat,
        weight.t(),
        of_rows,
        of_columns,
        bias=bias,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return out.view(shape)


@dataclass(frozen=True, slots=True)
class Float8Weights:
    """Weights in float8 with one scale, or one for every row, as a format that products take.

    Its tensors: "", [out, in]; "_scale"; and "_input_scale" where a file has one, which is kept.
    """

    @property
    def name(self) -> str:
        return "float8_e4m3fn with scales"

    @property
    def made(self) -> frozenset[str]:
        return frozenset(("", "_scale"))

    def quantise(self, weight: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write a weight [out, in] into its tensors."""
        numbers, scale = out[""].view(FLOAT8), out["_scale"]
        if scale.numel() > 1:
            _write_rows(weight, numbers, scale)
            return
        largest = torch.linalg.vector_norm(weight, float("inf"), dtype=torch.float32)
        found = scales_of(largest)
        _write_by(weight, found, numbers)
        scale.copy_(found.view(scale.shape))


def multiplies_float8(device: torch.device) -> bool:
    """Whether a device has products in float8; a CPU does them in float32."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= CAPABILITY


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """The kernels, or None without Triton: torch's operators give the same bits, in more passes."""
    try:
        from . import float8_triton
    except ImportError:
        return None
    return float8_triton
