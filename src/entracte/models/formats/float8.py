"""Weights in float8: numbers themselves, or times one scale for all or for every row."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Part, by_rows
from .tiles import TileReader, address_of, row_scales


@dataclass(frozen=True, slots=True)
class Float8:
    """A float8 dtype without scales. Expanding is exact: its numbers are bfloat16's too."""

    dtype: torch.dtype

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def elementwise(self) -> bool:
        return True

    @property
    def on_device(self) -> bool:
        return True

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns]."""
        return {"": (self.dtype, (rows, columns))}

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:  # noqa: ARG002
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        constants = int(self.dtype is torch.float8_e5m2), 0
        return TileReader(tiles_triton.read_float8, constants, (address_of(stored), 0, 0, 0))

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out`, in its dtype."""
        # On a GPU `out.copy_` takes 1.8 times as long for float8, to the same bits.
        torch._foreach_copy_([out], [stored[""]])


@dataclass(frozen=True, slots=True)
class ScaledFloat8:
    """w = number * scale, in float32 and rounded once.

    Stored: "", [out, in] of the dtype, or uint8 with its bytes; "_scale", a floating-point number
    for all, or [out] or [out, 1]; and perhaps "_input_scale", which only products in float8 use.
    full_precision: whether the file says not to multiply in float8.
    """

    dtype: torch.dtype
    full_precision: bool = False

    @property
    def name(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} with scales"

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def on_device(self) -> bool:
        return True

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns], with one scale for all."""
        return {"": (self.dtype, (rows, columns)), "_scale": (torch.float32, ())}

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:  # noqa: ARG002
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        scale, constants = row_scales(stored), (int(self.dtype is torch.float8_e5m2), 1)
        if scale is None:
            return None
        return TileReader(tiles_triton.read_float8, constants, (address_of(stored), *scale, 0))

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out` [out, in]."""
        numbers = stored[""].view(self.dtype)
        scale = stored["_scale"].float().view(-1, 1)

        def rows(first: int, last: int) -> Tensor:
            return numbers[first:last].float() * (scale if len(scale) == 1 else scale[first:last])

        by_rows(rows, out)
