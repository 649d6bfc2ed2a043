"""Weights in 8-bit integers with scales, plain or in rotated inputs (ConvRot)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Part, by_rows
from .tiles import TileReader, address_of, row_scales


@dataclass(frozen=True, slots=True)
class Int8:
    """w = number * scale, in float32, and rounded once.

    Stored: "", [out, in] int8; "_scale", a floating-point number for all, or [out] or [out, 1].
    group: of ConvRot, a power of 4: every so many inputs are rotated, by R of `rotation`, and
        w = (number * scale) R takes that back.
    """

    group: int | None = None

    @property
    def name(self) -> str:
        return "int8" if self.group is None else f"int8 with ConvRot of {self.group}"

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def on_device(self) -> bool:
        return True

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns], with a scale for every row."""
        return {"": (torch.int8, (rows, columns)), "_scale": (torch.float32, (rows, 1))}

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:  # noqa: ARG002
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        scale = row_scales(stored)
        if scale is None or self.group is not None:
            return None
        return TileReader(tiles_triton.read_int8, (0, 0), (address_of(stored), *scale, 0))

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored weight into `out` [out, in]."""
        numbers, scale = stored[""], stored["_scale"].float().view(-1, 1)
        turn = None if self.group is None else rotation(self.group, out.device)

        def rows(first: int, last: int) -> Tensor:
            wide = numbers[first:last].float()
            wide *= scale if len(scale) == 1 else scale[first:last]
            if turn is None:
                return wide
            return (wide.view(-1, len(turn)) @ turn).view(wide.shape)

        by_rows(rows, out)


def rotation(size: int, device: torch.device) -> Tensor:
    """ConvRot's R, [size, size] float32: H / 2 in its Kronecker powers, where H [4, 4] is -1 on the
    antidiagonal and else 1. It is symmetric and its own inverse. size: a power of 4.
    """
    index = torch.arange(size, device=device)
    digits = index.view(-1, 1) ^ index  # base 4, one is 3 where H is -1
    sign = torch.ones(size, size, device=device)
    for place in range(0, size.bit_length() - 1, 2):
        sign *= torch.where((digits >> place) & 3 == 3, -1.0, 1.0)
    return sign / 2.0 ** ((size.bit_length() - 1) // 2)
