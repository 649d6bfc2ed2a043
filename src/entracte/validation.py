"""Pydantic's findings in plain words."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# Of a value that is repeated in an error.
SHOWN_CHARACTERS = 40

WHOLE = "must be a whole number"
NUMBER = "must be a number"
YES_NO = "must be true or false"
TEXT = "must be text"
LIST = "must be a list"

# By pydantic's names for kinds of errors; braces are filled from the error's context.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "int_parsing": WHOLE,
        "int_type": WHOLE,
        "int_from_float": WHOLE,
        "int_parsing_size": WHOLE,
        "float_parsing": NUMBER,
        "float_type": NUMBER,
        "finite_number": "must be a finite number",
        "bool_parsing": YES_NO,
        "bool_type": YES_NO,
        "string_type": TEXT,
        "string_unicode": "must be text of Unicode characters",
        "path_type": "must be a path",
        "list_type": LIST,
        "tuple_type": LIST,
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "model_attributes_type": "must be an object",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "multiple_of": "must be a multiple of {multiple_of}",
        "literal_error": "must be {expected}",
        "too_long": "must have at most {max_length} entries",
        "string_too_long": "must have at most {max_length} characters",
        "missing": "is missing",
        "extra_forbidden": "is unknown",
    }
)

BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"}


def plain(finding: ErrorDetails) -> str:
    """What is wrong with a value and what would be right, to be read after its name."""
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "value_error":
        return finding["msg"].removeprefix("Value error, ")
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind not in WORDS:
        return finding["msg"]
    words = WORDS[kind].format_map({name: _said(value) for name, value in context.items()})
    if kind in ("missing", "extra_forbidden"):
        return words
    value = finding["input"]
    shown = shown_value(value)
    if kind in BOUNDS and isinstance(value, str) and shown:  # it was read as a number
        shown = value
    return f"{words}, not {shown}" if shown else words


def shown_value(value: object) -> str:
    """A number or word to repeat in an error; empty for anything longer or else."""
    if isinstance(value, int) and abs(value) >= 10**SHOWN_CHARACTERS:
        return ""
    if value is None:
        return "null"
    if not isinstance(value, str | int | float):
        return ""
    shown = repr(value) if isinstance(value, str) else str(value).lower()
    return shown if len(shown) <= SHOWN_CHARACTERS else ""


def describe(error: ValidationError) -> str:
    """Every finding as a line: the field, and what is wrong with it."""
    lines = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"])
        lines.append(f"{where}: {plain(finding)}" if where else plain(finding))
    return "\n".join(lines)


def _said(value: object) -> str:
    """A limit, or the choices there are (which pydantic gives in quotes)."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "")
