"""Reading one tensor's bytes from a file into memory of any dtype."""

import ctypes

import torch
from torch import Tensor

from .open_file import OpenFile
from .tensor_info import TensorInfo

# Numbers converted at a time where memory has another dtype than the file: as many as torch
# converts in the calling thread. More would wake all of its threads for every chunk, and a larger
# buffer would leave holes in the heap of the reader thread.
CHUNK = 2**15


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
