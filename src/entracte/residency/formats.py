"""Weights that are stored in another form than they are expanded to, or computed with in another.

What is stored, or computed with, is moved as opaque bytes; only its format knows what they mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class StoredTiles(Protocol):
    """How a kernel reads a weight tile by tile, expanded, instead of from bfloat16.

    read: a Triton function of the four numbers, which lie where `merge_table` says, the tile's
        first row and column, its rows and columns counted from there, the weight's rows and
        columns, and the two constants; to the tile in float32, which is what `expand` has before
        it is rounded.
    """

    @property
    def read(self) -> Any: ...

    @property
    def constants(self) -> tuple[int, int]: ...

    @property
    def numbers(self) -> tuple[int, int, int, int]: ...


class WeightFormat(Protocol):
    """How a weight is stored. Formats that expand alike are equal."""

    @property
    def name(self) -> str:
        """For people, such as `float8_e4m3fn`."""

    @property
    def elementwise(self) -> bool:
        """Whether a weight is one stored tensor of which every number expands by itself, so that
        neighbours in memory can be expanded as one.
        """

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write a weight into `out`, as it is computed with: the same bits at every call.

        stored: its stored tensors, by the ends of their names (see `spec.Stored`), on the device of
        `out`. The work is queued in the current stream.
        """

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> StoredTiles | None:
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""


class ProductFormat(Protocol):
    """What products take a weight in, where that is another form than it is expanded to."""

    @property
    def name(self) -> str:
        """For people, such as `float8_e4m3fn`."""

    @property
    def made(self) -> frozenset[str]:
        """The tensors that are made of a weight, by the ends of their names; others are kept."""

    def quantise(self, weight: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write a weight, expanded and with adapters merged in, into the tensors that are made of
        it: the same bits at every call.

        out: by the ends of their names (see `spec.Computed`), on the weight's device. The work is
        queued in the current stream.
        """


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One weight to quantise, after it is expanded and merged into."""

    format: ProductFormat
    weight: Tensor
    out: Mapping[str, Tensor]

    def carry_out(self) -> None:
        """Queue it in the current stream."""
        self.format.quantise(self.weight, self.out)


@dataclass(frozen=True, slots=True)
class Expansion:
    """One weight to expand: from its stored tensors, by the ends of their names, into `out`."""

    format: WeightFormat
    stored: Mapping[str, Tensor]
    out: Tensor

    @property
    def tiles(self) -> StoredTiles | None:
        """How a kernel reads it; None where `carry_out` must do it."""
        if self.out.dtype is not torch.bfloat16 or self.out.ndim != 2:
            return None
        return self.format.tiles(self.stored, self.out.shape[1])

    def carry_out(self) -> None:
        """Queue it in the current stream."""
        self.format.expand(self.stored, self.out)


@torch.inference_mode(False)
def join_neighbours(expansions: Sequence[Expansion]) -> list[Expansion]:
    """The same work in fewer operations.

    Weights that are neighbours in memory, as they are stored and as they are expanded, become one,
    which is flat, if their format is elementwise. Those of a block's linears mostly are neighbours.
    """
    joined: list[Expansion] = []
    for each in expansions:
        one = _as_one(joined[-1], each) if joined else None
        if one is None:
            joined.append(each)
        else:
            joined[-1] = one
    return joined


def _as_one(first: Expansion, second: Expansion) -> Expansion | None:
    """Both expansions as one; None if they cannot be."""
    if first.format != second.format or not first.format.elementwise:
        return None
    [(end, stored)], [more] = first.stored.items(), second.stored.values()
    if not (_adjoin(stored, more) and _adjoin(first.out, second.out)):
        return None
    return Expansion(first.format, {end: _flat(stored, more)}, _flat(first.out, second.out))


def _adjoin(first: Tensor, second: Tensor) -> bool:
    same_memory = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    ends_at = first.data_ptr() + first.nbytes
    return same_memory and first.dtype == second.dtype and ends_at == second.data_ptr()


def _flat(first: Tensor, second: Tensor) -> Tensor:
    """Two contiguous neighbours as one tensor."""
    return first.as_strided((first.numel() + second.numel(),), (1,))
