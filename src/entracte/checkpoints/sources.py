"""Where a model's tensors are: every component's parameters, located in files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .safetensors_file import TensorInfo


class TensorFile(Protocol):
    """A file of tensors by key, or what is read as if it were one.

    path: what messages call it. tensors, metadata: its header.
    """

    @property
    def path(self) -> Path: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def tensor(self, name: str) -> Tensor:
        """The named tensor on the CPU, not to be written to; it need not be contiguous."""

    def config(self) -> Mapping[str, Any]:
        """The header's config; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Located:
    """One tensor in one file."""

    file: TensorFile
    key: str

    @property
    def info(self) -> TensorInfo:
        return self.file.tensors[self.key]

    def tensor(self) -> Tensor:
        return self.file.tensor(self.key)


@dataclass(frozen=True, slots=True)
class ComponentSource:
    """A component before it is loaded: its config, and its tensors by parameter name."""

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Located]

    @property
    def nbytes(self) -> int:
        return sum(located.info.nbytes for located in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(located.info.parameters for located in self.tensors.values())


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A whole model before it is loaded.

    tokenizer: the folder that holds the tokenizer.
    distilled_lora: the LoRA file of stage 2 and its strength, None where there is none.
    """

    version: str
    components: Mapping[str, ComponentSource]
    tokenizer: Path
    distilled_lora: tuple[TensorFile, float] | None
