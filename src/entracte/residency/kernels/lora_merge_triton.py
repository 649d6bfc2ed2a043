"""One Triton kernel that merges adapters into any number of weights at one launch.

Every tile of every weight is read once and written once. The rounding is that of `merge.merge`;
only the order of summing inside a product is the kernel's own, and it does not depend on what else
is merged, or on whether the output is the weight itself.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from entracte.residency.formats import StoredTiles
from entracte.residency.merge import WeightMerge

from .merge_table import ADAPTER_FIELDS, WEIGHT_FIELDS, MergeTable, MergeTiling

DEFAULT_TILING = MergeTiling()


@triton.jit
def _strength(adapter):  # type: ignore[no-untyped-def]
    """What an adapter's product is multiplied by, float32."""
    return tl.load(adapter + 3).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _product(  # type: ignore[no-untyped-def]
    adapter,  # where its fields are in the table
    row,  # the tile's first
    column,  # the tile's first
    row_count,
    column_count,
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
):
    """A tile of up @ down, or bf16(strength * up) @ down where it is SCALED, summed in float32."""
    down = tl.load(adapter).to(tl.pointer_type(tl.bfloat16))
    up = tl.load(adapter + 1).to(tl.pointer_type(tl.bfloat16))
    rank = tl.multiple_of(tl.load(adapter + 2).to(tl.int32), 8)
    depth = tl.arange(0, DEPTH)
    columns = column + tl.arange(0, COLUMNS)
    # Rows and ranks beyond the end read the last one again: no mask on them. Surplus rows are not
    # stored, and surplus ranks are multiplied by the zeros that `up` is filled with.
    rows = tl.minimum(tl.arange(0, ROWS), row_count - 1 - row)
    up += row.to(tl.int64) * rank
    up_places = rows[:, None] * rank + depth[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, rank, DEPTH, num_stages=STAGES):
        left = tl.load(
            tl.multiple_of(up + start + up_places, [1, 16]),
            mask=(depth < rank - start)[None, :],
            other=0.0,
        )
        ranks = tl.minimum(start + depth, rank - 1)
        right = tl.load(
            tl.multiple_of(down + ranks[:, None] * column_count + columns[None, :], [1, 16]),
            mask=(columns < column_count)[None, :],
            other=0.0,
        )
        if SCALED:
            left = (left.to(tl.float32) * _strength(adapter)).to(tl.bfloat16)
        total = tl.dot(left, right, total)
    return total


@triton.jit  # type: ignore[untyped-decorator]
def read_bfloat16(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    A: tl.constexpr,  # noqa: ARG001, N803
    B: tl.constexpr,  # noqa: ARG001, N803
):
    """A tile of a weight in bfloat16, float32."""
    weight = tl.load(numbers).to(tl.pointer_type(tl.bfloat16))
    first = row.to(tl.int64) * width + column
    places = rows[:, None] * width + columns[None, :]
    # Weights are not needed again: they should not drive the factors out of the cache.
    return tl.load(
        tl.multiple_of(weight + first + places, [1, 16]),
        mask=(row + rows < height)[:, None] & (column + columns < width)[None, :],
        eviction_policy="evict_first",
    ).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _merge_tiles(  # type: ignore[no-untyped-def]
    numbers,  # see merge_table
    tiles,
    FIELDS: tl.constexpr,  # noqa: N803
    ADAPTER_FIELDS: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
    SEVERAL: tl.constexpr,  # noqa: N803
    MERGED: tl.constexpr,  # noqa: N803
    READ: tl.constexpr,  # noqa: N803
    A: tl.constexpr,  # noqa: N803
    B: tl.constexpr,  # noqa: N803
):
    """One tile of one weight. MERGED: whether weights have adapters. READ, A, B: how it is read."""
    tile = tl.program_id(0)
    fields = numbers + tl.load(tiles + tile) * FIELDS
    out = tl.load(fields + 1).to(tl.pointer_type(tl.bfloat16))
    row_count = tl.load(fields + 2).to(tl.int32)
    column_count = tl.multiple_of(tl.load(fields + 3).to(tl.int32), 8)
    tile -= tl.load(fields + 4).to(tl.int32)
    adapter = numbers + tl.load(fields + 5)

    tiles_down = tl.cdiv(row_count, ROWS)
    tiles_across = tl.cdiv(column_count, COLUMNS)
    group = tile // (GROUP * tiles_across)
    within = tile % (GROUP * tiles_across)
    height = tl.minimum(tiles_down - group * GROUP, GROUP)
    row = (group * GROUP + within % height) * ROWS
    column = (within // height) * COLUMNS

    if MERGED:
        delta = _product(
            adapter, row, column, row_count, column_count, ROWS, COLUMNS, DEPTH, STAGES, SCALED
        ).to(tl.bfloat16)
        if SEVERAL:
            count = tl.load(fields + 6).to(tl.int32)
            for further in range(1, count):
                this = adapter + further * ADAPTER_FIELDS
                product = _product(
                    this, row, column, row_count, column_count, ROWS, COLUMNS, DEPTH, STAGES, False
                )
                delta = (delta.to(tl.float32) + _strength(this) * product).to(tl.bfloat16)

    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (row + rows < row_count)[:, None] & (column + columns < column_count)[None, :]
    after = READ(fields, row, column, rows, columns, row_count, column_count, A, B).to(tl.bfloat16)
    if MERGED:
        after = (after.to(tl.float32) + delta.to(tl.float32)).to(tl.bfloat16)
    first = row.to(tl.int64) * column_count + column
    places = rows[:, None] * column_count + columns[None, :]
    tl.store(
        tl.multiple_of(out + first + places, [1, 16]),
        after,
        mask=inside,
        eviction_policy="evict_first",
    )


class FusedMerges:
    """Merges that `merge_table.fits` accepts, to be launched repeatedly on the same memory.

    stored: how their weights are read, if that is as they are stored: in one way for all, which
    must all have adapters, or none must; what they merge into is then what is written alone.
    Only addresses are kept. Preparing copies the table to the device in the current stream without
    waiting; the first of its kind compiles the kernel, which takes seconds.
    """

    def __init__(
        self,
        merges: Sequence[WeightMerge],
        device: torch.device,
        tiling: MergeTiling = DEFAULT_TILING,
        stored: Sequence[StoredTiles] = (),
    ) -> None:
        table = MergeTable.of(merges, tiling, stored)
        self._numbers = _upload(table.numbers, device)
        self._tiles = _upload(table.tiles, device)
        self._grid = (table.tiles.numel(),)
        self._options = {
            "FIELDS": WEIGHT_FIELDS,
            "ADAPTER_FIELDS": ADAPTER_FIELDS,
            "ROWS": tiling.rows,
            "COLUMNS": tiling.columns,
            "DEPTH": tiling.depth,
            "GROUP": tiling.group,
            "STAGES": tiling.stages,
            "SCALED": table.scaled,
            "SEVERAL": table.several,
            "MERGED": bool(merges[0].adapters),
            "READ": stored[0].read if stored else read_bfloat16,
            "A": stored[0].constants[0] if stored else 0,
            "B": stored[0].constants[1] if stored else 0,
            "num_warps": tiling.warps,
        }
        _merge_tiles.warmup(self._numbers, self._tiles, grid=(1,), **self._options)

    def launch(self) -> None:
        """Merge, in the current stream, which must be the one that it was prepared in."""
        _merge_tiles[self._grid](self._numbers, self._tiles, **self._options)


def _upload(numbers: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return numbers
    return numbers.pin_memory().to(device, non_blocking=True)
