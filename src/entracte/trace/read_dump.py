"""Reading a performance dump from a file."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from entracte.errors import EntracteError

from .dump import VERSION, Dump


class DumpError(EntracteError):
    """A performance dump cannot be read, or lacks what was asked of it."""


def read_dump(path: Path) -> Dump:
    """Read and validate a dump. Raises DumpError, which says what is wrong and where."""
    data = _read_json(path)
    if not isinstance(data, dict) or "total_duration_ms" not in data or "steps" not in data:
        raise DumpError(
            f"{path} is not a performance dump; `entracte generate` writes one to `perf_dump_path`",
            settings=("perf_dump_path",),
        )
    recording = data.get("recording")
    if isinstance(recording, dict) and recording.get("version") != VERSION:
        raise DumpError(
            f"{path} has a recording of version {recording.get('version')!r}; this entracte reads "
            f"version {VERSION}"
        )
    try:
        return Dump.model_validate(data)
    except ValidationError as error:
        raise DumpError(f"{path} is inconsistent: {_first_error(error)}") from error


def _read_json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DumpError(f"there is no file {path}") from error
    except OSError as error:
        raise DumpError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DumpError(f"{path} is not a performance dump: it is not text") from error
    if not text.strip():
        raise DumpError(f"{path} is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if _cut_off(text, error):
            last = text.rstrip().count("\n") + 1
            raise DumpError(f"{path} ends too early, in line {last}: it was cut off") from error
        raise DumpError(f"{path} is not JSON: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise DumpError(f"{path} is not a performance dump: it is nested too deeply") from error


def _cut_off(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text is truncated JSON."""
    rest = text[error.pos :].strip()
    # A truncated text may end in half a number or word, but does not end in a closing bracket.
    half = len(rest) < len("\\uffff") + 2 and not rest.endswith(("}", "]"))
    return half or error.msg.startswith("Unterminated")


def _first_error(error: ValidationError) -> str:
    """The first error, with its path."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
