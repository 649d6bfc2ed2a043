"""JSON files beside the weights: configs and indices."""

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from entracte.errors import CheckpointError

from .open_file import OpenFile
from .recognise import LOOKED_AT, recognise_bytes

MAX_BYTES = 64 * 2**20  # the largest of them is Gemma's tokenizer, 33 MB


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises CheckpointError if there is none."""
    file = OpenFile(path)
    if file.size > MAX_BYTES:
        raise CheckpointError(f"{path} is too large: {file.size:,} bytes")
    data = file.read(0, file.size)
    try:
        return parse_object(data.decode())
    except ValueError as error:
        found = recognise_bytes(data[:LOOKED_AT])
        raise CheckpointError(f"{path} is not JSON: {found or error}") from None


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; raises ValueError for anything else, also for duplicate keys."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def first_problem(error: ValidationError) -> str:
    """The first finding of pydantic, in one line without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")
