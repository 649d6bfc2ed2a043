"""One GGUF file: its tensors read directly into their destination.

They are called as in other files, but without the prefix of the transformer.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch

from entracte.models.formats import Ggml

from .gguf_header import GgufEntry, read_gguf_header
from .read_tensor import TensorReader
from .tensor_info import TensorInfo, quantised

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
)


class GgufFile(TensorReader):
    """A header, and tensors on demand. bytes_taken: how many bytes were read.

    architecture: "ltxv" or "gemma3". fields: numbers and texts of the header, by name.
    Raises CheckpointError if the file is missing, damaged, or of another architecture or version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header = read_gguf_header(self._file)
        self.architecture = header.architecture
        self.fields = header.fields
        self.metadata = header.metadata
        self.config = header.config
        self.quantised = header.quantised
        self.tensors = {name: _info(entry) for name, entry in header.tensors.items()}


def _info(entry: GgufEntry) -> TensorInfo:
    if entry.kind in DTYPES:
        return TensorInfo(DTYPES[entry.kind], entry.shape, entry.start, prod(entry.rows))
    stored = TensorInfo(torch.uint8, entry.rows, entry.start, prod(entry.rows))
    return quantised(Ggml(entry.kind), entry.shape, weight=stored)
