"""Checked values: pydantic's models, whose findings are told in plain words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from entracte.errors import RequestError

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


class Checked(BaseModel):
    """Values that are checked when made or copied, and never change. Errors are RequestErrors.

    positional: the fields that may be given without their names, in this order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    positional: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *unnamed: Any, **values: Any) -> None:
        """Raises RequestError, naming every field that is wrong and what would be right."""
        if len(unnamed) > len(self.positional):
            names = ", ".join(self.positional)
            raise RequestError(f"{type(self).__name__} takes only {names} without a name")
        for name, value in zip(self.positional, unnamed, strict=False):
            if name in values:
                raise RequestError(f"{name} is given twice")
            values[name] = value
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(describe(error)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are checked as those of a new one are."""
        if update is None:
            return super().model_copy(deep=deep)
        return type(self)(**{**dict(self), **update})
