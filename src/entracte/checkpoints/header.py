"""The header of a safetensors file, checked as strictly as the format's own library does."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from entracte.errors import CheckpointError

from .open_file import OpenFile

LENGTH_BYTES = 8
MAX_BYTES = 100 * 2**20  # the library's limit

# Above what a file can hold, and far below what arithmetic with sizes could not bear.
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Entry(BaseModel):
    """A tensor as the header has it; offsets count from the end of the header."""

    model_config = ConfigDict(strict=True, frozen=True)

    dtype: str
    shape: list[Count]
    data_offsets: Annotated[list[Count], Field(min_length=2, max_length=2)]


ENTRIES = TypeAdapter(dict[str, Entry], config=ConfigDict(strict=True))
METADATA = TypeAdapter(dict[str, str], config=ConfigDict(strict=True))


@dataclass(frozen=True, slots=True)
class Header:
    """data_start: where tensors begin, in bytes from the beginning of the file."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    data_start: int


def read_header(file: OpenFile) -> Header:
    """The header of a safetensors file; raises CheckpointError where it or the file is wrong."""
    if file.size < LENGTH_BYTES:
        raise CheckpointError(f"{file.path} is not a safetensors file: it has {file.size} bytes")
    length = int.from_bytes(file.read(0, LENGTH_BYTES), "little")
    if length > MAX_BYTES:
        raise CheckpointError(f"{file.path} is not a safetensors file: it has no such header")
    data_start = LENGTH_BYTES + length
    if data_start > file.size:
        raise CheckpointError(
            f"{file.path} is truncated or not a safetensors file: its header would end at byte "
            f"{data_start:,} of {file.size:,}"
        )
    text = file.read(LENGTH_BYTES, length)
    try:
        values = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        metadata = METADATA.validate_python(values.pop("__metadata__", None) or {})
        tensors = ENTRIES.validate_python(values)
    except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        raise CheckpointError(
            f"{file.path} is not a safetensors file: its header cannot be read ({_reason(error)})"
        ) from None
    _check_places(file, tensors, data_start)
    return Header(metadata, tensors, data_start)


def _check_places(file: OpenFile, tensors: dict[str, Entry], data_start: int) -> None:
    """Tensors must fill what is behind the header without holes or overlaps."""
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
