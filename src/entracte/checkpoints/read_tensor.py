"""Reading tensors' bytes from a file into memory of any dtype."""

import ctypes
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .open_file import OpenFile
from .tensor_info import TensorInfo, read_expanded

# Numbers converted at a time where memory has another dtype than the file: as many as torch
# converts in the calling thread. More would wake all of its threads for every chunk, and a larger
# buffer would leave holes in the heap of the reader thread.
CHUNK = 2**15


class TensorReader:
    """The tensors of one file, which is opened once and stays open.

    tensors: by name, from the header. bytes_taken: how many bytes were read.
    """

    tensors: Mapping[str, TensorInfo]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_taken = 0
        self._file = OpenFile(path)

    def read(self, name: str, out: Tensor) -> None:
        """Read the named tensor into `out`, contiguous host memory of its shape and of any dtype.

        Raises CheckpointChanged if the file is not what it was when it was opened.
        """
        info = self.tensors[name]
        if info.converts:
            self._read(info, out)
        else:
            read_expanded(info, partial(self.read_stored, name), out)

    def read_stored(self, name: str, end: str, out: Tensor) -> None:
        """Read one of a quantised weight's tensors, by the end of its name, as it is stored."""
        self._read(self.tensors[name].parts[end], out)

    def _read(self, info: TensorInfo, out: Tensor) -> None:
        self.bytes_taken += info.nbytes
        read_tensor(self._file, info, out)

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if the file was changed or replaced since it was opened."""
        self._file.check_unchanged()


def read_tensor(file: OpenFile, info: TensorInfo, out: Tensor) -> None:
    """Read a tensor into `out`, contiguous host memory of its shape and of any dtype.

    Raises CheckpointChanged if the file is not what it was when it was opened.
    """
    if info.nbytes == 0:
        return
    numbers = out.view(-1)
    if out.dtype == info.dtype:
        file.read_into(_memory(numbers), info.start)
        return
    chunk = torch.empty(min(CHUNK, len(numbers)), dtype=info.dtype)
    for first in range(0, len(numbers), CHUNK):
        part = numbers[first : first + CHUNK]
        read = chunk[: len(part)]
        file.read_into(_memory(read), info.start + first * info.dtype.itemsize)
        part.copy_(read)


def _memory(flat: Tensor) -> memoryview:
    """A tensor's bytes, by address: after `Tensor.numpy` its storage could not be resized."""
    array = ctypes.c_ubyte * flat.nbytes
    return memoryview(array.from_address(flat.data_ptr())).cast("B")
