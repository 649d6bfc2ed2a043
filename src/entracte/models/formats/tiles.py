"""What a kernel needs to know of a weight to expand it tile by tile."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TileReader:
    """read: a function of `tiles_triton`. constants, numbers: what it takes, see there."""

    read: Any
    constants: tuple[int, int]
    numbers: tuple[int, int, int, int]


def address_of(stored: Mapping[str, Tensor]) -> int:
    return stored[""].data_ptr()


def row_scales(stored: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Where a weight's scale is, and 1 where every row has one; None where it is not in float32."""
    scale = stored["_scale"]
    return (scale.data_ptr(), int(scale.numel() > 1)) if scale.dtype is torch.float32 else None
