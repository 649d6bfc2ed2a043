"""One GGUF file: its tensors read directly into their destination.

They are called as in other files, but without the prefix of the transformer.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.models.formats import Ggml

from .gguf_header import GgufEntry, read_gguf_header
from .open_file import OpenFile
from .read_tensor import read_tensor
from .tensor_info import TensorInfo, quantised, read_expanded

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
)


class GgufFile:
    """A header, and tensors on demand. bytes_taken: how many bytes were read.

    architecture: "ltxv" or "gemma3". fields: numbers and texts of the header, by name.
    Raises CheckpointError if the file is missing, damaged, or of another architecture or version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_taken = 0
        self._file = OpenFile(path)
        header = read_gguf_header(self._file)
        self.architecture = header.architecture
        self.fields = header.fields
        self.metadata = header.metadata
        self.config = header.config
        self.quantised = header.quantised
        self.tensors: Mapping[str, TensorInfo] = {
            name: _info(entry) for name, entry in header.tensors.items()
        }

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


def _info(entry: GgufEntry) -> TensorInfo:
    if entry.kind in DTYPES:
        return TensorInfo(DTYPES[entry.kind], entry.shape, entry.start, prod(entry.rows))
    stored = TensorInfo(torch.uint8, entry.rows, entry.start, prod(entry.rows))
    return quantised(Ggml(entry.kind), entry.shape, weight=stored)
