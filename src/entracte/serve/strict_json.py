"""JSON by the standard: no NaN, no repeated names, and only valid Unicode."""

import json
from typing import Any

# Of objects, lists and entries. Each takes a hundred times its bytes once parsed.
MOST_PARTS = 100_000


class TooManyParts(ValueError):
    """Parsed, the text would take far more memory than its length."""


class GivenTwice(ValueError):
    """An object has a name twice, which parsers read differently."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is given twice")
        self.name = name


def parse(text: str | bytes | bytearray) -> Any:
    """Read JSON; bytes are UTF-8, with or without a byte order mark.

    Raises ValueError for anything else; TooManyParts and GivenTwice are subclasses.
    """
    # Commas and brackets within strings count too, which is simpler and hardly matters.
    if isinstance(text, str):
        parts = text.count("{") + text.count("[") + text.count(",")
    else:
        parts = text.count(b"{") + text.count(b"[") + text.count(b",")
        text = text.decode("utf-8-sig")
    if parts > MOST_PARTS:
        raise TooManyParts(f"it has over {MOST_PARTS:,} parts")
    try:
        found = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
        if "\\u" in text:  # escapes may be halves of characters, which cannot be encoded
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise GivenTwice(name)
        found[name] = value
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")
