"""One safetensors file: its header as data, its tensors read directly into their destination."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.errors import CheckpointError

from .header import HeaderEntry, read_header
from .open_file import OpenFile
from .recognise import TAKE_BFLOAT16

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
        "I64": torch.int64,
        "U64": torch.uint64,
        "I32": torch.int32,
        "U32": torch.uint32,
        "I16": torch.int16,
        "U16": torch.uint16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)

# Numbers converted at a time where memory has another dtype than the file: as many as torch
# converts in the calling thread. More would wake all of its threads for every chunk, and a larger
# buffer would leave holes in the heap of the reader thread.
CHUNK = 2**15


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the header describes it; `start` counts from the beginning of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def parameters(self) -> int:
        return prod(self.shape)


class SafetensorsFile:
    """A header, and tensors on demand. bytes_taken: how many bytes were read.

    The file is opened once and stays open. Raises CheckpointError if it is missing, damaged, or not
    a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_taken = 0
        self._file = OpenFile(path)
        header = read_header(self._file)
        self.metadata = header.metadata
        self.config = header.config
        self.quantised = header.quantised
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._info(name, entry, header.data_start)
            for name, entry in header.tensors.items()
        }

    def _info(self, name: str, entry: HeaderEntry, data_start: int) -> TensorInfo:
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            what = f"{self.quantised}; {TAKE_BFLOAT16}" if self.quantised else "not supported"
            raise CheckpointError(f"{self.path}: {name} has the dtype {entry.dtype}: {what}")
        begin, end = entry.data_offsets
        info = TensorInfo(dtype, tuple(entry.shape), data_start + begin, end - begin)
        if info.nbytes != info.parameters * dtype.itemsize:
            raise CheckpointError(
                f"{self.path} is damaged: {name} is {list(info.shape)} in {entry.dtype} and has "
                f"{info.nbytes:,} bytes"
            )
        return info

    def read(self, name: str, out: Tensor) -> None:
        """Read the named tensor into `out`, contiguous host memory of its shape and of any dtype.

        Raises CheckpointChanged if the file is not what it was when it was opened.
        """
        info = self.tensors[name]
        self.bytes_taken += info.nbytes
        if info.nbytes == 0:
            return
        numbers = out.view(-1)
        if out.dtype == info.dtype:
            self._file.read_into(_memory(numbers), info.start)
            return
        chunk = torch.empty(min(CHUNK, len(numbers)), dtype=info.dtype)
        for first in range(0, len(numbers), CHUNK):
            part = numbers[first : first + CHUNK]
            read = chunk[: len(part)]
            self._file.read_into(_memory(read), info.start + first * info.dtype.itemsize)
            part.copy_(read)

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if the file was changed or replaced since it was opened."""
        self._file.check_unchanged()


def _memory(flat: Tensor) -> memoryview:
    """A tensor's bytes, by address: after `Tensor.numpy` its storage could not be resized."""
    array = ctypes.c_ubyte * flat.nbytes
    return memoryview(array.from_address(flat.data_ptr())).cast("B")
