"""Where a model's tensors are: every component's parameters, located in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from entracte.models.float8 import FLOAT8
from entracte.models.formats import Part
from entracte.models.gemma import TokenizerText
from entracte.models.registry import ModelVersion

from .tensor_info import TensorInfo

# fp8: approximate; the transformer's blocks multiply in float8.
Precision = Literal["exact", "fp8"]


class TensorFile(Protocol):
    """A file of tensors by key, or what is read as if it were one.

    path: what messages call it. tensors, metadata, config: its header; they may be empty.
    quantised: in which format without a reader, in words; None where nothing says so.
    """

    @property
    def path(self) -> Path: ...

    @property
    def quantised(self) -> str | None: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str, out: Tensor) -> None:
        """Read the named tensor into `out`, contiguous host memory of its shape and of any dtype.

        Raises CheckpointError if the file cannot be read, or was changed since it was opened.
        """

    def read_stored(self, name: str, end: str, out: Tensor) -> None:
        """Read one of a quantised weight's tensors, by the end of its name, as it is stored."""

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if the file was changed or replaced since it was opened."""


@dataclass(frozen=True, slots=True)
class Located:
    """One tensor in one file."""

    file: TensorFile
    key: str

    @property
    def info(self) -> TensorInfo:
        return self.file.tensors[self.key]

    def read(self, out: Tensor) -> None:
        """Read the tensor into `out`; see `TensorFile.read`."""
        self.file.read(self.key, out)

    def tensor(self) -> Tensor:
        """The tensor in memory of its own, in the dtype of the file."""
        out = torch.empty(self.info.shape, dtype=self.info.dtype)
        self.read(out)
        return out


@dataclass(frozen=True, slots=True)
class ComponentSource:
    """A component before it is loaded: its config, and its tensors by parameter name.

    float8: the weights that are multiplied in float8; of each, the tensors that products take, by
        the ends of their names.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Located]
    float8: Mapping[str, Mapping[str, Part]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(located.info.nbytes for located in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(located.info.parameters for located in self.tensors.values())

    def block_count(self, blocks: str) -> int:
        """How many blocks its tensors have in the list of this name."""
        prefix = f"{blocks}."
        numbers = (name.removeprefix(prefix) for name in self.tensors if name.startswith(prefix))
        return len({number.partition(".")[0] for number in numbers})

    def computed_bytes(self, itemsize: int) -> int:
        """Of its weights as they are computed with. itemsize: bytes of a number of the dtype."""
        small = sum(self.tensors[name].info.parameters for name in self.float8)
        return self.parameters * itemsize - small * (itemsize - FLOAT8.itemsize)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A whole model before it is loaded.

    tokenizer: the folder that holds the tokenizer, or what another file has of it.
    distilled_lora: the LoRA file of stage 2 and its strength; may be None.
    notes: what was chosen of several files, and what was skipped.
    precision: "exact", or "fp8" where the transformer multiplies in float8: see `in_float8`.
    """

    version: ModelVersion
    components: Mapping[str, ComponentSource]
    tokenizer: Path | TokenizerText
    distilled_lora: tuple[TensorFile, float] | None
    notes: tuple[str, ...] = ()
    precision: Precision = "exact"

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if a file of the components is no longer what was opened."""
        tensors = (each for one in self.components.values() for each in one.tensors.values())
        for file in {id(each.file): each.file for each in tensors}.values():
            file.check_unchanged()
