"""Weights that are stored in another form than they are computed with.

What is stored is moved as opaque bytes; only its format knows what they mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class WeightFormat(Protocol):
    """How a weight is stored. Formats that expand alike are equal."""

    @property
    def name(self) -> str:
        """For people, such as `float8_e4m3fn`."""

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write a weight into `out`, as it is computed with: the same bits at every call.

        stored: its stored tensors, by the ends of their names (see `spec.Stored`), on the device of
        `out`. The work is queued in the current stream.
        """


@dataclass(frozen=True, slots=True)
class Expansion:
    """One weight to expand: from its stored tensors, by the ends of their names, into `out`."""

    format: WeightFormat
    stored: Mapping[str, Tensor]
    out: Tensor

    def carry_out(self) -> None:
        """Queue it in the current stream."""
        self.format.expand(self.stored, self.out)
