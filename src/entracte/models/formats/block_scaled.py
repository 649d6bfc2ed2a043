"""Weights with a scale for every few inputs: nvfp4 and mxfp8.

Their scales mostly lie in the *blocked* layout, in which cuBLAS reads them: tiles of 128 rows and 4
columns one after another, row by row of tiles, padded with zeros. In a tile the scale of row r and
column c is at ((r % 32) * 4 + r // 32) * 4 + c.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Part, by_rows
from .tiles import TileReader, address_of

NVFP4_GROUP = 16
MXFP8_GROUP = 32

TILE_ROWS = 128
TILE_COLUMNS = 4


def blocked_shape(rows: int, columns: int) -> tuple[int, int]:
    """The shape of a blocked layout of [rows, columns] scales, with its padding."""
    return -(-rows // TILE_ROWS) * TILE_ROWS, -(-columns // TILE_COLUMNS) * TILE_COLUMNS


def unblocked(scales: Tensor, rows: int, columns: int) -> Tensor:
    """Scales in the blocked layout, in whatever shape, as [rows, columns]."""
    height, width = blocked_shape(rows, columns)
    quarter = TILE_ROWS // 4
    tiles = scales.reshape(height // TILE_ROWS, width // TILE_COLUMNS, quarter, 4, TILE_COLUMNS)
    return tiles.permute(0, 3, 2, 1, 4).reshape(height, width)[:rows, :columns]


def blocked(scales: Tensor) -> Tensor:
    """[rows, columns] scales, of one byte each, in the blocked layout."""
    rows, columns = scales.shape
    height, width = blocked_shape(rows, columns)
    padded = torch.zeros(height, width, dtype=torch.uint8, device=scales.device)
    padded[:rows, :columns] = scales.view(torch.uint8)
    quarter = TILE_ROWS // 4
    tiles = padded.view(height // TILE_ROWS, 4, quarter, width // TILE_COLUMNS, TILE_COLUMNS)
    laid_out = tiles.permute(0, 3, 2, 1, 4).reshape(height, width)
    return laid_out.view(scales.dtype)


@dataclass(frozen=True, slots=True)
class Nvfp4:
    """w = e2m1 * (scale of 16 inputs * scale of all), in float32 and rounded once.

    Stored: "", [out, in / 2] uint8, two numbers a byte; "_scale", float8_e4m3fn or uint8 with its
    bytes, of every 16 inputs; "_scale_2", one floating-point number.
    high_first: whether a byte's high four bits are the first number (Comfy, Lightricks) or the
        second (torchao, ModelOpt).
    blocked: whether scales are in the blocked layout, or [out, in / 16].
    """

    high_first: bool
    blocked: bool

    @property
    def name(self) -> str:
        return "nvfp4"

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def on_device(self) -> bool:
        return True

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns]."""
        groups = columns // NVFP4_GROUP
        scales = blocked_shape(rows, groups) if self.blocked else (rows, groups)
        return {
            "": (torch.uint8, (rows, columns // 2)),
            "_scale": (torch.float8_e4m3fn, scales),
            "_scale_2": (torch.float32, ()),
        }

    def as_published(self, stored: Mapping[str, Tensor], rows: int) -> Mapping[str, Tensor]:
        """The same weight, of so many rows, as Lightricks stores it: high half first, blocked."""
        packed, scales = stored[""], stored["_scale"].view(torch.float8_e4m3fn)
        if not self.high_first:
            packed = packed << 4 | packed >> 4
        if self.blocked:
            scales = unblocked(scales, rows, 2 * packed.shape[1] // NVFP4_GROUP)
        of_all = stored["_scale_2"].float().view(())
        return {"": packed, "_scale": blocked(scales.contiguous()), "_scale_2": of_all}

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        groups, of_all = columns // NVFP4_GROUP, stored["_scale_2"]
        if of_all.dtype is not torch.float32:
            return None
        across = -(-groups // TILE_COLUMNS) if self.blocked else groups
        constants = int(self.high_first), int(self.blocked)
        own = stored["_scale"].data_ptr(), of_all.data_ptr(), across
        return TileReader(tiles_triton.read_nvfp4, constants, (address_of(stored), *own))

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out` [out, in]."""
        packed, groups = stored[""], out.shape[1] // NVFP4_GROUP
        scales = stored["_scale"].view(torch.float8_e4m3fn)
        if self.blocked:
            scales = unblocked(scales, len(out), groups)
        of_all = stored["_scale_2"].float().view(1, 1)

        def rows(first: int, last: int) -> Tensor:
            scale = scales[first:last].float() * of_all
            numbers = e2m1(packed[first:last], self.high_first).view(-1, groups, NVFP4_GROUP)
            return (numbers * scale.unsqueeze(2)).flatten(1)

        by_rows(rows, out)


def e2m1(packed: Tensor, high_first: bool) -> Tensor:
    """Two 4-bit floats a byte, [rows, bytes], to [rows, 2 * bytes] float32."""
    low, high = packed & 15, packed >> 4
    codes = torch.stack((high, low) if high_first else (low, high), 2).flatten(1).short()
    # Sign, exponent and mantissa where float16 has them; its exponent counts from 14 lower.
    return ((codes & 8) << 12 | (codes & 7) << 9).view(torch.float16).float() * 2.0**14


@dataclass(frozen=True, slots=True)
class Mxfp8:
    """w = number * power of two of 32 inputs, in float32 and rounded once.

    Stored: "", [out, in] float8_e4m3fn or uint8 with its bytes; "_scale", float8_e8m0fnu or uint8
    with its bytes, of every 32 inputs, in the blocked layout.
    """

    @property
    def name(self) -> str:
        return "mxfp8"

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def on_device(self) -> bool:
        return True

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns]."""
        scales = blocked_shape(rows, columns // MXFP8_GROUP)
        return {
            "": (torch.float8_e4m3fn, (rows, columns)),
            "_scale": (torch.float8_e8m0fnu, scales),
        }

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        across = -(-columns // (MXFP8_GROUP * TILE_COLUMNS))
        own = stored["_scale"].data_ptr(), across, 0
        return TileReader(tiles_triton.read_mxfp8, (0, 0), (address_of(stored), *own))

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out` [out, in]."""
        groups = out.shape[1] // MXFP8_GROUP
        numbers = stored[""].view(torch.float8_e4m3fn)
        scales = unblocked(stored["_scale"].view(torch.float8_e8m0fnu), len(out), groups)

        def rows(first: int, last: int) -> Tensor:
            wide = numbers[first:last].float().view(-1, groups, MXFP8_GROUP)
            return (wide * scales[first:last].float().unsqueeze(2)).flatten(1)

        by_rows(rows, out)
