"""The header of a safetensors file, checked as strictly as by the format's own library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from entracte.errors import CheckpointError

from .json_file import first_problem, parse_object
from .open_file import OpenFile
from .recognise import LOOKED_AT, recognise_bytes, recognise_quantised

LENGTH_BYTES = 8
MAX_BYTES = 100 * 2**20  # the library's limit

# Above what a file can hold, and far below integer overflow.
Count = Annotated[int, Field(ge=0, lt=2**63)]


class HeaderEntry(BaseModel):
    """A tensor as the header has it; offsets count from the end of the header."""

    model_config = ConfigDict(strict=True, frozen=True)

    dtype: str
    shape: list[Count]
    data_offsets: Annotated[list[Count], Field(min_length=2, max_length=2)]


ENTRIES = TypeAdapter(dict[str, HeaderEntry], config=ConfigDict(strict=True))
METADATA = TypeAdapter(dict[str, str], config=ConfigDict(strict=True))


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself. Needs no torch.

    config: that of the metadata; may be empty. quantised: in which format without a reader, in
    words; None where nothing says so. data_start: where tensors begin, in bytes from the
    beginning of the file.
    """

    path: Path
    metadata: Mapping[str, str]
    config: Mapping[str, Any]
    quantised: str | None
    tensors: Mapping[str, HeaderEntry]
    data_start: int


def read_header(file: OpenFile) -> Header:
    """Read the header of a safetensors file; raises CheckpointError if it is invalid."""
    length = int.from_bytes(file.read(0, min(file.size, LENGTH_BYTES)), "little")
    if file.size < LENGTH_BYTES:
        raise _not_safetensors(file, f"it has {file.size} bytes")
    if length > MAX_BYTES:
        raise _not_safetensors(file, "it begins with bytes of no known kind")
    data_start = LENGTH_BYTES + length
    if data_start > file.size:
        raise _not_safetensors(
            file, f"or truncated: its header would end at byte {data_start:,} of {file.size:,}"
        )
    try:
        values = parse_object(file.read(LENGTH_BYTES, length).decode())
        metadata = METADATA.validate_python(values.pop("__metadata__", None) or {})
        tensors = ENTRIES.validate_python(values)
    except ValueError as error:  # pydantic's errors are ValueErrors
        raise _not_safetensors(file, f"its header cannot be read ({_reason(error)})") from None
    _check_places(file, tensors, data_start)
    try:
        config = parse_object(metadata.get("config", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{file.path}: its config is not JSON: {error}") from None
    dtypes = {name: entry.dtype for name, entry in tensors.items()}
    quantised = recognise_quantised(dtypes)
    return Header(file.path, metadata, config, quantised, tensors, data_start)


def _check_places(file: OpenFile, tensors: dict[str, HeaderEntry], data_start: int) -> None:
    """Raise unless tensors fill the space behind the header without holes or overlaps."""
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin = entry.data_offsets[0]
        if begin != end or entry.data_offsets[1] < begin:
            raise CheckpointError(
                f"{file.path} is damaged: {name} is at bytes {begin:,} to "
                f"{entry.data_offsets[1]:,}, and should begin at {end:,}"
            )
        end = entry.data_offsets[1]
    expected = data_start + end
    if file.size < expected:
        raise CheckpointError(
            f"{file.path} is truncated: it has {file.size:,} bytes and should have {expected:,}. "
            "Download it again"
        )
    if file.size > expected:
        raise CheckpointError(
            f"{file.path} is damaged: it has {file.size:,} bytes and should have {expected:,}. "
            "Download it again"
        )


def _not_safetensors(file: OpenFile, reason: str) -> CheckpointError:
    found = recognise_bytes(file.read(0, min(file.size, LOOKED_AT)))
    return CheckpointError(f"{file.path} is not a safetensors file: {found or reason}")


def _reason(error: ValueError) -> str:
    return first_problem(error) if isinstance(error, ValidationError) else str(error)
