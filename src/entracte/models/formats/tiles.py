"""Which formats a kernel can expand tile by tile, and what it needs to know of a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from . import Format


@dataclass(frozen=True, slots=True)
class TileReader:
    """read: a function of `tiles_triton`. constants, numbers: what it takes, see there."""

    read: Any
    constants: tuple[int, int]
    numbers: tuple[int, int, int, int]


def tiles_of(
    weight_format: "Format", stored: Mapping[str, Tensor], columns: int
) -> TileReader | None:
    """How a kernel reads a weight [out, columns]; None where `expand` must do it.

    Raises ImportError without Triton.
    """
    from . import Float8, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8, tiles_triton
    from .block_scaled import MXFP8_GROUP, NVFP4_GROUP, TILE_COLUMNS

    if not all(each.is_contiguous() for each in stored.values()):
        return None
    address = stored[""].data_ptr()
    scale = stored.get("_scale")
    if scale is not None and isinstance(weight_format, ScaledFloat8 | Int8):
        if scale.dtype is not torch.float32:
            return None
        of_scale = scale.data_ptr(), int(scale.numel() > 1)
    match weight_format:
        case Float8(dtype):
            constants = int(dtype is torch.float8_e5m2), 0
            return TileReader(tiles_triton.read_float8, constants, (address, 0, 0, 0))
        case ScaledFloat8(dtype):
            constants = int(dtype is torch.float8_e5m2), 1
            return TileReader(tiles_triton.read_float8, constants, (address, *of_scale, 0))
        case Int8(None):
            return TileReader(tiles_triton.read_int8, (0, 0), (address, *of_scale, 0))
        case Nvfp4(high_first, blocked) if stored["_scale_2"].dtype is torch.float32:
            groups = columns // NVFP4_GROUP
            across = -(-groups // TILE_COLUMNS) if blocked else groups
            scales = stored["_scale"].data_ptr(), stored["_scale_2"].data_ptr()
            constants = int(high_first), int(blocked)
            return TileReader(tiles_triton.read_nvfp4, constants, (address, *scales, across))
        case Mxfp8():
            across = -(-columns // (MXFP8_GROUP * TILE_COLUMNS))
            place = stored["_scale"].data_ptr()
            return TileReader(tiles_triton.read_mxfp8, (0, 0), (address, place, across, 0))
        case Ggml("Q4_0" | "Q4_1" | "Q5_0" | "Q5_1" | "Q8_0" as name):
            constants = int(name[1]), int(name[3])
            return TileReader(tiles_triton.read_ggml_32, constants, (address, 0, 0, 0))
        case Ggml("Q4_K" | "Q5_K" as name):
            return TileReader(tiles_triton.read_ggml_45, (int(name[1]), 0), (address, 0, 0, 0))
        case Ggml("Q6_K"):
            return TileReader(tiles_triton.read_ggml_6, (0, 0), (address, 0, 0, 0))
    return None
