"""Expanding a matrix some rows at a time, so that little of it is in float32 at once."""

from collections.abc import Callable

import torch
from torch import Tensor

# The dtype and the shape of a stored tensor.
Part = tuple[torch.dtype, tuple[int, ...]]

# Numbers of a piece: 16 MiB in float32.
PIECE = 2**22


def by_rows(rows: Callable[[int, int], Tensor], out: Tensor) -> None:
    """Write into `out` [rows, columns] what is made of it, from row to row, rounded to its dtype.

    rows: the rows from the first up to the last one, which is not among them.
    """
    step = max(1, PIECE // max(1, out.shape[1]))
    for first in range(0, len(out), step):
        last = min(first + step, len(out))
        out[first:last].copy_(rows(first, last))
