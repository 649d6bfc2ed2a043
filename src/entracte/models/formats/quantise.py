"""From a weight to what is stored of it, in the formats that are written.

Each rounds to the nearest number of its format, ties to even, as the published files have it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .block_scaled import MXFP8_GROUP, NVFP4_GROUP, Mxfp8, Nvfp4, blocked
from .float8 import Float8, ScaledFloat8
from .int8 import Int8, rotation

# The largest number of four bits (e2m1), and where the nearest code changes.
E2M1_MAX = 6.0
E2M1_LIMITS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
# At a limit the even code is the nearest: these belong to the code above.
E2M1_UPWARD = (0.75, 1.75, 3.5)

Writable = Float8 | ScaledFloat8 | Nvfp4 | Mxfp8 | Int8


def quantise(weight_format: Writable, weight: Tensor) -> Mapping[str, Tensor]:
    """What is stored of a weight [out, in] of any dtype, by the ends of names; see the formats.

    Scales are made of the weight's largest numbers: of all, of a row, or of a group of inputs, of
    which `in` must be a multiple (see `inputs_in_group`).
    """
    numbers = weight.float()
    match weight_format:
        case Float8(dtype):
            return {"": _clamped(numbers, dtype)}
        case ScaledFloat8(dtype):
            # In the official order of operations: these are the bits of the official files.
            by = torch.finfo(dtype).max / _not_zero(numbers.abs().max())
            return {"": _clamped(numbers * by, dtype), "_scale": by.reciprocal()}
        case Int8(group):
            if group is not None:
                numbers = (_grouped(numbers, group) @ rotation(group, weight.device)).flatten(1)
            scale = _not_zero(numbers.abs().amax(1, keepdim=True) / 127)
            return {"": (numbers / scale).round().clamp(-127, 127).to(torch.int8), "_scale": scale}
        case Nvfp4(high_first=True, blocked=True):
            return _nvfp4(numbers)
        case Mxfp8():
            return _mxfp8(numbers)
    raise ValueError(f"{weight_format.name} of this kind is not written")


def inputs_in_group(weight_format: Writable) -> int:
    """How many inputs of a row have something in common, so that rows must be a multiple of it."""
    match weight_format:
        case Nvfp4():
            return NVFP4_GROUP
        case Mxfp8():
            return MXFP8_GROUP
        case Int8(group):
            return group or 1
    return 1


def _nvfp4(numbers: Tensor) -> Mapping[str, Tensor]:
    groups = _grouped(numbers, NVFP4_GROUP)
    largest = torch.finfo(torch.float8_e4m3fn).max
    of_all = _not_zero(numbers.abs().max() / (largest * E2M1_MAX))
    scales = _clamped(groups.abs().amax(2) / E2M1_MAX / of_all, torch.float8_e4m3fn)
    by = _not_zero(scales.float() * of_all).unsqueeze(2)
    codes = _e2m1_codes((groups / by).flatten(1))
    packed = codes[:, 0::2] << 4 | codes[:, 1::2]
    return {"": packed, "_scale": blocked(scales), "_scale_2": of_all}


def _e2m1_codes(numbers: Tensor) -> Tensor:
    """The nearest 4-bit floats, as uint8 codes; bit 3 is the sign."""
    limits = torch.tensor(E2M1_LIMITS, device=numbers.device)
    sizes = numbers.abs()
    codes = torch.bucketize(sizes, limits)
    for limit in E2M1_UPWARD:
        codes += sizes == limit
    return (codes | numbers.signbit().long() << 3).to(torch.uint8)


def _mxfp8(numbers: Tensor) -> Mapping[str, Tensor]:
    groups = _grouped(numbers, MXFP8_GROUP)
    largest = groups.abs().amax(2) / torch.finfo(torch.float8_e4m3fn).max
    # The power of two that brings the largest number within the format's, at least 2**-127.
    mantissa, exponent = torch.frexp(largest)
    power = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(-127, 127)
    power = torch.where(largest == 0, -127, power)
    divided = torch.ldexp(groups, -power.unsqueeze(2))
    scales = (power + 127).to(torch.uint8)
    stored = _clamped(divided.flatten(1), torch.float8_e4m3fn)
    return {"": stored, "_scale": blocked(scales).view(torch.float8_e8m0fnu)}


def _clamped(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """As float8; casting what is too large for it would give NaN."""
    largest = torch.finfo(dtype).max
    return numbers.clamp(-largest, largest).to(dtype)


def _grouped(numbers: Tensor, size: int) -> Tensor:
    """[out, in] as [out, groups, size]."""
    return numbers.view(len(numbers), -1, size)


def _not_zero(scale: Tensor) -> Tensor:
    """1 in place of 0, which nothing can be divided by."""
    return torch.where(scale == 0, 1.0, scale)
