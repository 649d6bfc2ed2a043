"""Random weights in quantised formats: random bytes, with scales that give them a wanted size."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.models.formats import Float8, Format, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.ggml import TYPES

# A number in float8_e4m3fn below 2**FLOAT8_POWER.
FLOAT8_POWER = 8

# No power of two, so that rounding is seen.
FACTOR = 1.1

# Of ggml's types: where a block's d is, in bytes; the largest number at d = 1; and where what is
# taken off or added is, with how many times d that must be for numbers around 0.
GGML: Mapping[str, tuple[int, float, tuple[int, float] | None]] = MappingProxyType(
    {
        "Q4_0": (0, 8, None),
        "Q4_1": (0, 8, (2, -7.5)),
        "Q5_0": (0, 16, None),
        "Q5_1": (0, 16, (2, -15.5)),
        "Q8_0": (0, 128, None),
        "Q2_K": (80, 24, (82, 1.5)),
        "Q3_K": (108, 128, None),
        "Q4_K": (0, 480, (2, 7.5)),
        "Q5_K": (0, 992, (2, 15.5)),
        "Q6_K": (208, 4096, None),
    }
)


def fill(weight_format: Format, end: str, raw: Tensor, out: Tensor, power: int) -> None:
    """Write one stored tensor of a weight, by the end of its name, into `out`.

    raw: random bytes of its shape, [..., bytes]; or, for float8, numbers below 2**FLOAT8_POWER.
    power: weights are to stay below 2**power, or little more.
    """
    match weight_format, end:
        case (Float8(), ""):
            out.copy_(raw.float() * 2.0 ** (power - FLOAT8_POWER))
        case (ScaledFloat8() | Mxfp8(), ""):
            out.copy_(raw)
        case (ScaledFloat8(), _):
            out.fill_(FACTOR * 2.0 ** (power - FLOAT8_POWER))
        case (Mxfp8(), _):
            out.view(torch.uint8).copy_((raw & 1) + (126 + power - FLOAT8_POWER))
        case (Nvfp4(), "_scale"):
            out.view(torch.uint8).copy_((raw & 15) + 0x30)  # 0.5 to 1.9
        case (Nvfp4(), "_scale_2"):
            out.fill_(FACTOR * 2.0**power / 12)
        case (Int8(), "_scale"):
            out.fill_(FACTOR * 2.0 ** (power - 7))
        case (Ggml(name), _):
            out.copy_(raw)
            _set_scales(name, out, power)
        case _:
            out.view(torch.uint8).copy_(raw)


def _set_scales(name: str, data: Tensor, power: int) -> None:
    place, largest, minimum = GGML[name]
    nbytes = TYPES[name].nbytes
    d = FACTOR * 2.0**power / largest
    blocks = data.view(-1, nbytes)
    blocks[:, place : place + 2] = torch.tensor([d], dtype=torch.float16).view(torch.uint8)
    if minimum is not None:
        place, times = minimum
        other = torch.tensor([d * times], dtype=torch.float16)
        blocks[:, place : place + 2] = other.view(torch.uint8)
