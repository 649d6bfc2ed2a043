"""The tensors of a LoRA's changes in its file."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from entracte.errors import CheckpointChanged, LoraError

from ..sources import Located

# Types of factors. One-byte types are read as bfloat16, which has all their values.
FLOATS = {
    torch.float64: torch.float32,
    torch.float32: torch.float32,
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float8_e4m3fn: torch.bfloat16,
    torch.float8_e5m2: torch.bfloat16,
}


# Quantised factors are expanded and rounded once, as weights are.
QUANTISED_AS = torch.bfloat16


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """One tensor of a file, or some of its rows; `shape` and `dtype` are what it is read as."""

    located: Located
    shape: tuple[int, ...]
    dtype: torch.dtype
    first_row: int | None = None

    @classmethod
    def of(cls, located: Located) -> Self:
        """A whole tensor. Raises LoraError if its type cannot be applied to weights."""
        info = located.info
        dtype = FLOATS.get(info.dtype) if info.converts else QUANTISED_AS
        if dtype is None:
            kind = str(info.dtype).removeprefix("torch.")
            raise LoraError(located.file.path, f"{located.key} is of {kind}, not a floating type")
        if 0 in info.shape:
            raise LoraError(located.file.path, f"{located.key} is empty, {list(info.shape)}")
        return cls(located, info.shape, dtype)

    def rows(self, first: int, count: int) -> "TensorSlice":
        """Some rows of it."""
        begin = (self.first_row or 0) + first
        return replace(self, shape=(count, *self.shape[1:]), first_row=begin)

    def flat(self) -> "TensorSlice":
        """The same numbers in one dimension."""
        return replace(self, shape=(self.located.info.parameters,))

    @property
    def without_numbers(self) -> Tensor:
        """A tensor of its size on the meta device."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def read(self, out: Tensor) -> None:
        """Read it into `out`, host memory of its shape and of any dtype.

        Raises LoraError for a number that is not finite, and for a file that was changed.
        """
        try:
            if self.first_row is None:
                self.located.read(out.view(self.located.info.shape))
            else:
                whole = torch.empty(self.located.info.shape, dtype=self.dtype)
                self.located.read(whole)
                out.copy_(whole[self.first_row : self.first_row + self.shape[0]])
        except CheckpointChanged:
            words = "it was changed or replaced while it was read; try again"
            raise LoraError(self.located.file.path, words) from None
        # A sum is not finite if a number is not; it takes a fifth of checking every number.
        if not torch.isfinite(out.sum(dtype=torch.float32)) and not torch.isfinite(out).all():
            key = self.located.key
            raise LoraError(self.located.file.path, f"{key} has numbers that are not finite")
