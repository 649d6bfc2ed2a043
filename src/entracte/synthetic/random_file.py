"""Random weights in the form of a file: every tensor is a view of a few small buffers."""

import math
import zlib
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from entracte.checkpoints.tensor_info import TensorInfo, read_expanded
from entracte.models.formats import Format

from .random_formats import FLOAT8_POWER, fill

DTYPE = torch.bfloat16
SEED = 23
BUFFER_NUMBERS = 2**23

# What a tensor's last name says of its values, where they are all the same. Filters are running
# means of 12 samples. The mel basis must be positive, because a logarithm is taken after it.
CONSTANTS: Mapping[str, float] = MappingProxyType(
    {
        "mean-of-means": 0.0,
        "std-of-means": 1.0,
        "alpha": 0.0,
        "beta": 0.0,
        "filter": 1 / 12,
        "mel_basis": 2.0**-5,
    }
)

# Or of the power of two that they stay below, where the shape does not.
POWERS: Mapping[str, int] = MappingProxyType(
    {"learnable_registers": -1, "forward_basis": -4, "inverse_basis": -4, "bias": -6}
)
TABLE_POWER = -1

# Makes a LoRA's product a tenth of the weights that it is added to, at any rank.
LORA_POWER = -3


class Numbers:
    """Uniform pseudo-random numbers: one sequence in bfloat16 for every power of two that is asked
    for, 16 MiB each.

    They are the same in every process and on every machine: they are drawn as whole multiples of
    2**-24, and everything after that is exact but for one rounding.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}

    @cached_property
    def bytes(self) -> Tensor:
        """[BUFFER_NUMBERS] random bytes, not to be written to."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.randint(256, (BUFFER_NUMBERS,), generator=generator, dtype=torch.uint8)

    def below(self, power: int) -> Tensor:
        """[BUFFER_NUMBERS] numbers between -2**power and 2**power, not to be written to."""
        if power not in self._buffers:
            generator = torch.Generator().manual_seed(SEED)
            drawn = torch.rand(BUFFER_NUMBERS, generator=generator)
            self._buffers[power] = drawn.mul_(2).sub_(1).mul_(2.0**power).to(DTYPE)
        return self._buffers[power]


class RandomFile:
    """Tensors of given shapes in bfloat16 whose values follow from their names.

    Names are published keys; the values are of the size that torch would begin a training with, so
    that a model of them computes finite numbers. `numbers` may be shared by several files.
    formats: of the weights that are quantised, by key.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        numbers: Numbers,
        config: Mapping[str, Any] = MappingProxyType({}),
        metadata: Mapping[str, str] = MappingProxyType({}),
        formats: Mapping[str, Format] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.quantised: str | None = None
        self.metadata = metadata
        self.config = config
        self._numbers = numbers
        self.tensors: Mapping[str, TensorInfo] = {
            key: _quantised(formats[key], shape) if key in formats else _info(DTYPE, shape)
            for key, shape in shapes.items()
        }

    def read(self, name: str, out: Tensor) -> None:
        """Copy the named tensor into `out`, of its shape and of any dtype."""
        info = self.tensors[name]
        if info.format is None:
            out.copy_(self._view(name))
        else:
            read_expanded(info, partial(self.read_stored, name), out)

    def read_stored(self, name: str, end: str, out: Tensor) -> None:
        """Write one of a quantised weight's tensors, by the end of its name."""
        info = self.tensors[name]
        assert info.format is not None
        power = values_of(name, info.shape)
        assert isinstance(power, int)  # matrices have no constant values
        start = zlib.crc32(f"{name}{end}".encode()) % (BUFFER_NUMBERS // 2)
        floats = end == "" and info.dtype.is_floating_point
        numbers = self._numbers.below(FLOAT8_POWER) if floats else self._numbers.bytes
        fill(info.format, end, _rows(numbers, start, info.parts[end].shape), out, power)

    def check_unchanged(self) -> None:
        """Nothing can change it."""

    def _view(self, name: str) -> Tensor:
        """The named tensor; nothing is computed or copied, and rows may share memory."""
        shape = self.tensors[name].shape
        values = values_of(name, shape)
        if isinstance(values, float):
            return torch.tensor(values, dtype=DTYPE).expand(shape)
        # Anywhere in the first half, so that the second always has room for rows.
        start = zlib.crc32(name.encode()) % (BUFFER_NUMBERS // 2)
        return _rows(self._numbers.below(values), start, shape)


def values_of(key: str, shape: tuple[int, ...]) -> float | int:
    """A tensor's values: a float for all, or an int, the power of `Numbers.below`."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf in CONSTANTS:
        return CONSTANTS[leaf]
    if "scale_shift_table" in leaf:
        return TABLE_POWER
    if leaf in POWERS:
        return POWERS[leaf]
    if len(shape) == 1:
        # A norm's factor; Gemma's are counted from 1.
        return 0.0 if key.startswith("language_model.") else 1.0
    power = -round(math.log2(math.prod(shape[1:])) / 2)
    return power + LORA_POWER if ".lora_B." in key else power


def _info(dtype: torch.dtype, shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(dtype, shape, 0, math.prod(shape) * dtype.itemsize)


def _quantised(weight_format: Format, shape: tuple[int, ...]) -> TensorInfo:
    rows, columns = shape
    parts = {end: _info(*part) for end, part in weight_format.parts(rows, columns).items()}
    nbytes = sum(part.nbytes for part in parts.values())
    return TensorInfo(parts[""].dtype, shape, 0, nbytes, weight_format, parts)


def _rows(buffer: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """A view whose rows (the first axis) begin as far apart as the buffer allows, at most a row's
    length: those of a large tensor overlap, and still no two are the same.
    """
    if not shape:
        return buffer[0]
    length = math.prod(shape[1:])
    apart = min(length, (len(buffer) - start - length) // max(1, shape[0] - 1))
    row = buffer[start : start + length].view(shape[1:])
    return row.as_strided(shape, (apart, *row.stride()), row.storage_offset())
