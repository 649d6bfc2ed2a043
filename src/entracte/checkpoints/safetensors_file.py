"""One safetensors file: its header as data, its tensors read directly into their destination."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.errors import CheckpointError

from .header import HeaderEntry, read_header
from .quantised import recognise_weights
from .read_tensor import TensorReader
from .recognise import TAKE_BFLOAT16
from .tensor_info import TensorInfo

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


class SafetensorsFile(TensorReader):
    """A header, and tensors on demand. bytes_taken: how many bytes were read.

    stored: every tensor that the file has, scales and marks of quantised weights too.
    The file is opened once and stays open. Raises CheckpointError if it is missing, damaged, or not
    a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header = read_header(self._file)
        self.metadata = header.metadata
        self.config = header.config
        self.quantised = header.quantised
        self.stored = {
            name: self._info(name, entry, header.data_start)
            for name, entry in header.tensors.items()
        }
        self.tensors = self.stored
        if self.quantised is None:
            self.tensors = recognise_weights(path, self.stored, self.metadata, self.read_alone)

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

    def read_alone(self, name: str) -> Tensor:
        """One of `stored` in memory of its own."""
        out = torch.empty(self.stored[name].shape, dtype=self.stored[name].dtype)
        self._read(self.stored[name], out)
        return out
