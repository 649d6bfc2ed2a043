"""The header of a GGUF file, read by the `gguf` package. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.errors import CheckpointError

from .json_file import parse_object
from .open_file import OpenFile

if TYPE_CHECKING:
    from gguf import GGUFReader
    from gguf.gguf_reader import ReaderTensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
LTX = "ltxv"
GEMMA = "gemma3"
ARCHITECTURES = (LTX, GEMMA)


@dataclass(frozen=True, slots=True)
class GgufEntry:
    """A tensor: its shape as it is computed with, and where its bytes are in the file.

    kind: ggml's name of its type. rows: how many, and the bytes of each.
    """

    kind: str
    shape: tuple[int, ...]
    rows: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself.

    fields: its numbers and texts, by name. config: that of a model's safetensors file; may be
    empty. The other attributes are those of `Header`.
    """

    path: Path
    fields: Mapping[str, Any]
    metadata: Mapping[str, str]
    config: Mapping[str, Any]
    quantised: str | None
    tensors: Mapping[str, GgufEntry]

    @property
    def architecture(self) -> str:
        return str(self.fields["general.architecture"])


def is_gguf(file: OpenFile) -> bool:
    """Whether a file begins as GGUF files do."""
    return file.read(0, min(file.size, len(MAGIC))) == MAGIC


def read_gguf_header(file: OpenFile) -> GgufHeader:
    """Read the header of a GGUF file.

    Raises CheckpointError if it is damaged, or of another architecture or version.
    """
    path, start = file.path, file.read(0, min(file.size, 8))
    if start[:4] != MAGIC or len(start) < 8:
        raise CheckpointError(f"{path} is not a GGUF file, or truncated")
    version = int.from_bytes(start[4:], "little")
    if version not in VERSIONS:
        raise CheckpointError(
            f"{path} is a GGUF file of version {version}; versions "
            f"{' and '.join(map(str, VERSIONS))} can be read"
        )
    reader = _open(path)
    file.check_unchanged()  # the package has opened it again
    fields = _fields(reader)
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} is a GGUF file of the architecture {architecture!s:.40}; that of LTX-2.3 is "
            f"{LTX}, and of its text encoder {GEMMA}"
        )
    try:
        config = parse_object(str(fields.get("config", "{}")))
    except ValueError as error:
        raise CheckpointError(f"{path}: its config is not JSON: {error}") from None
    metadata = {name: str(fields[name]) for name in ("model_version",) if name in fields}
    tensors = {each.name: _entry(path, each, file.size) for each in reader.tensors}
    for name in tensors:
        if f"comfy.gguf.orig_shape.{name}" in reader.fields:
            raise CheckpointError(f"{path}: {name} is stored in another shape than its own")
    return GgufHeader(path, fields, metadata, config, None, tensors)


def _open(path: Path) -> "GGUFReader":
    from gguf import GGUFReader  # slow to import, and seldom needed

    try:
        return GGUFReader(path)
    # What is wrong with a file shows as what is wrong with arrays that are views of it.
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"{path} is a GGUF file that is truncated or damaged ({words}). Download it again"
        ) from None


def _fields(reader: "GGUFReader") -> dict[str, Any]:
    from gguf import GGUFValueType

    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if field.types and field.types[0] is not GGUFValueType.ARRAY
    }


def _entry(path: Path, tensor: "ReaderTensor", size: int) -> GgufEntry:
    from gguf import GGML_QUANT_SIZES

    kind, shape = tensor.tensor_type.name, tuple(int(each) for each in reversed(tensor.shape))
    count, nbytes = GGML_QUANT_SIZES[tensor.tensor_type]
    if not shape or shape[-1] % count:
        raise CheckpointError(
            f"{path}: {tensor.name} is {list(shape)} in {kind}; its last size is not a multiple of "
            f"{count}, as that has blocks of"
        )
    rows = prod(shape[:-1]), shape[-1] // count * nbytes
    if tensor.data_offset + prod(rows) > size:
        raise CheckpointError(f"{path} is truncated: {tensor.name} is behind its end")
    return GgufEntry(kind, shape, rows, int(tensor.data_offset))
