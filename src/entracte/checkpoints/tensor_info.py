"""A tensor as a file's header describes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from entracte.models.formats import Float8, Format


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor; `start` counts from the beginning of the file.

    shape: as it is computed with. nbytes: what the file has of it, scales too.
    format: of a weight that is quantised; None: its numbers are what is stored.
    parts: of a quantised weight, the tensors that are stored, by the ends of their names (see
        `models.formats`); dtype and start are those of the first.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int
    format: Format | None = None
    parts: Mapping[str, "TensorInfo"] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return prod(self.shape)

    @property
    def kind(self) -> str:
        """Of its numbers, for people: a dtype's name, or a format's."""
        return str(self.dtype).removeprefix("torch.") if self.format is None else self.format.name

    @property
    def converts(self) -> bool:
        """Whether its numbers are as they are stored, so that reading them converts at most."""
        return self.format is None or isinstance(self.format, Float8)


def quantised(weight_format: Format, shape: tuple[int, ...], **parts: TensorInfo) -> TensorInfo:
    """A quantised weight. parts: by the ends of their names; `weight` is that of the weight."""
    ends = {"" if end == "weight" else end: part for end, part in parts.items()}
    first = parts["weight"]
    nbytes = sum(part.nbytes for part in ends.values())
    return TensorInfo(first.dtype, shape, first.start, nbytes, weight_format, ends)


def read_expanded(info: TensorInfo, read: Callable[[str, Tensor], None], out: Tensor) -> None:
    """Write a quantised weight's numbers into `out`, host memory of its shape and of any dtype.

    read: writes a stored tensor, by the end of its name, into memory of its shape and dtype.
    """
    assert info.format is not None
    stored = {}
    for end, part in info.parts.items():
        stored[end] = torch.empty(part.shape, dtype=part.dtype)
        read(end, stored[end])
    info.format.expand(stored, out)
