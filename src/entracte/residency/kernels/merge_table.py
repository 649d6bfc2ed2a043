"""Merges as numbers that one launch of a kernel reads: what lies where, and which tile is whose.

The numbers are one flat int64 table. First come WEIGHT_FIELDS of every weight, then ADAPTER_FIELDS
of every adapter of every weight, weight by weight:

    weight   address of the weight, address of out, rows, columns, its first tile,
             where in the table its first adapter is, number of adapters, and, of one that is read
             as it is stored, the other three numbers of its `StoredTiles`
    adapter  address of down, address of up, rank, bits of the float32 strength * scale
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.formats import StoredTiles
from entracte.residency.merge import Factors, WeightMerge

WEIGHT_FIELDS = 10
ADAPTER_FIELDS = 4
VECTOR = 8  # bfloat16 numbers per load
VECTOR_BYTES = 16


@dataclass(frozen=True, slots=True)
class MergeTiling:
    """How a weight is cut: products are of [rows, columns], summed over `depth` ranks at a time.

    Rows, columns and depth are powers of two, at least 16. group: tiles below one another that are
    taken together, so that they find their factors in the cache. warps, stages: of the kernel.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    group: int = 8
    warps: int = 8
    stages: int = 3


@dataclass(frozen=True, slots=True)
class MergeTable:
    """numbers: int64, see above. tiles: int32, of every tile the number of its weight.

    scaled: whether any strength differs from 1. several: whether any weight has several adapters.
    """

    numbers: Tensor
    tiles: Tensor
    scaled: bool
    several: bool

    @classmethod
    def of(
        cls,
        merges: Sequence[WeightMerge],
        tiling: MergeTiling,
        stored: Sequence[StoredTiles] = (),
    ) -> "MergeTable":
        """Write the table, on the CPU, for merges that the kernel can do; there must be one.

        stored: how their weights are read, where that is as they are stored.
        """
        weights: list[int] = []
        adapters: list[int] = []
        counts: list[int] = []
        scaled = False
        for place, each in enumerate(merges):
            rows, columns = each.weight.shape
            address, *own = stored[place].numbers if stored else (each.weight.data_ptr(), 0, 0, 0)
            first_adapter = len(merges) * WEIGHT_FIELDS + len(adapters)
            weights += [address, each.out.data_ptr(), rows, columns]
            weights += [sum(counts), first_adapter, len(each.adapters), *own]
            counts.append(-(-rows // tiling.rows) * -(-columns // tiling.columns))
            for factors, strength in _low_rank(each):
                by = strength * factors.scale
                scaled = scaled or by != 1
                adapters += [factors.down.data_ptr(), factors.up.data_ptr()]
                adapters += [factors.down.shape[0], _float32_bits(by)]
        owners = torch.arange(len(merges), dtype=torch.int32)
        return cls(
            torch.tensor(weights + adapters, dtype=torch.int64),
            owners.repeat_interleave(torch.tensor(counts)),
            scaled,
            any(len(each.adapters) > 1 for each in merges),
        )


def fits(merge: WeightMerge) -> bool:
    """Whether the kernel can do it: contiguous bfloat16 matrices of whole aligned vectors.

    All its adapters must be low-rank ones.
    """
    return bool(merge.adapters) and fits_tiles(merge)


def fits_tiles(merge: WeightMerge) -> bool:
    """The same, also for none: where the weight is to be expanded at least."""
    if merge.weight.shape != merge.out.shape:
        return False
    pairs = _low_rank(merge)
    if len(pairs) < len(merge.adapters):
        return False
    tensors = [merge.weight, merge.out]
    for factors, _ in pairs:
        tensors += [factors.down, factors.up]
    return (
        all(map(_readable, tensors))
        and all(each.device == merge.weight.device for each in tensors)
        and all(factors.down.numel() < 2**31 for factors, _ in pairs)
    )


def _low_rank(merge: WeightMerge) -> list[tuple[Factors, float]]:
    return [(change, by) for change, by in merge.adapters if isinstance(change, Factors)]


def _readable(matrix: Tensor) -> bool:
    return (
        matrix.dtype == torch.bfloat16
        and matrix.ndim == 2
        and matrix.numel() > 0
        and matrix.is_contiguous()
        and matrix.shape[1] % VECTOR == 0
        and matrix.data_ptr() % VECTOR_BYTES == 0
    )


def _float32_bits(number: float) -> int:
    return int.from_bytes(struct.pack("<f", number), "little", signed=True)
