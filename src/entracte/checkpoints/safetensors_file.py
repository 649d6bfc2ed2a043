"""One safetensors file: its header as data, its tensors as views into a map of the file."""

import json
import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from entracte.errors import CheckpointError

DTYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
MAX_HEADER_BYTES = 100 * 2**20


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
    """A header, and on demand a tensor as a view into the mapped file.

    The file is opened once, for its header and its map together; a tensor's bytes are read by the
    kernel when they are first touched. `bytes_taken` counts what was handed out.

    Raises CheckpointError if the file is missing, truncated, or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_taken = 0
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < 8:
                    raise CheckpointError(f"{path} is no safetensors file: it has {size} bytes")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
        self.metadata, self.tensors = self._read_header(size)

    def _read_header(self, size: int) -> tuple[dict[str, str], dict[str, TensorInfo]]:
        length = int.from_bytes(self._map[:8], "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{self.path} is no safetensors file: it has no such header")
        if 8 + length > size:
            raise CheckpointError(
                f"{self.path} is truncated or no safetensors file: its header would end at byte "
                f"{8 + length:,} of {size:,}"
            )
        try:
            header: dict[str, Any] = json.loads(self._map[8 : 8 + length])
            metadata = header.pop("__metadata__", {})
            tensors = {
                name: TensorInfo(
                    dtype=DTYPES[entry["dtype"]],
                    shape=tuple(entry["shape"]),
                    start=8 + length + entry["data_offsets"][0],
                    nbytes=entry["data_offsets"][1] - entry["data_offsets"][0],
                )
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.path} is no safetensors file: its header cannot be read ({error})"
            ) from None
        for name, info in tensors.items():
            if info.nbytes != info.parameters * info.dtype.itemsize:
                raise CheckpointError(f"{self.path} is damaged: {name} has a wrong size")
        end = max((info.start + info.nbytes for info in tensors.values()), default=0)
        if end > size:
            raise CheckpointError(
                f"{self.path} is truncated: it has {size:,} bytes and should have {end:,}. "
                "Download it again"
            )
        return metadata, tensors

    def tensor(self, name: str) -> Tensor:
        """The named tensor, a view into the map; no byte is copied."""
        info = self.tensors[name]
        self.bytes_taken += info.nbytes
        if info.nbytes == 0:
            return torch.empty(info.shape, dtype=info.dtype)
        flat = torch.frombuffer(
            self._map, dtype=info.dtype, count=info.parameters, offset=info.start
        )
        return flat.view(info.shape)

    def config(self) -> dict[str, Any]:
        """The `config` of the header metadata; empty where there is none."""
        try:
            config = json.loads(self.metadata.get("config", "{}"))
        except ValueError:
            raise CheckpointError(f"{self.path} has a config that is no JSON") from None
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.path} has a config that is no JSON object")
        return config
