"""The documentation of the service, read by machine."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import entracte.serve
from entracte.config.serve import ServeSettings
from entracte.request_fields import http_name, range_words, value_schemas
from entracte.serve.fields import VideoFields
from entracte.serve.submission import default_fields

from .running import LTX_2_3

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# In the order in which a reader follows their examples, which use each other's results.
GUIDES = (
    DOCS / "start" / "first-service.md",
    DOCS / "how-to" / "call-the-service.md",
    DOCS / "how-to" / "run-a-service.md",
)
HTTP_API = DOCS / "reference" / "http-api.md"
SERVICE = DOCS / "reference" / "service.md"
SETTINGS = DOCS / "reference" / "settings.md"
SOURCE = Path(entracte.serve.__file__).parent

# Where the code of an error is among the arguments.
CODES = {
    "ApiError": 2,
    "bad_request": 2,
    "RequestRefused": 2,
    "UnknownModel": 2,
    "ImageTooLarge": 2,
    "_refuse": 2,
    "WorkFailed": 0,
    "fail": 0,
    "lose": 0,
}


def code_blocks(text: str, language: str) -> list[tuple[int, str]]:
    """Every block of a language, with the number of lines before it."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in found]


def rows(text: str, first_column: str) -> list[list[str]]:
    """The rows of all tables whose first column has this name, by cell."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
        elif not inside:
            inside = cells[0] == first_column
    return found


def names(cell: str) -> list[str]:
    """What is set as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def field_rows() -> list[list[str]]:
    """A request's fields: name, values, default and description, as the reference has them."""
    schemas = value_schemas(VideoFields)
    settings = ServeSettings()
    defaults = default_fields(settings, LTX_2_3) | {
        "model": settings.model_name[0],
        "seed": "random",
    }
    found = []
    for name, field in VideoFields.model_fields.items():
        schema = schemas[http_name(name)]
        default = defaults.get(http_name(name), "")
        if isinstance(default, str) and len(default) > 20:
            default = "`/v1/engine` has it"
        if isinstance(default, tuple):
            default = ", ".join(map(str, default))
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        row = [
            f"`{http_name(name)}`",
            values_of(schema),
            shown.lower() if default is False else shown,
        ]
        found.append([*row, field.description or ""])
    return found


def values_of(schema: dict[str, Any]) -> str:
    """The values that a field takes, in a word or two."""
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema["type"] == "array":
        entries = range_words(schema["items"])
        return f"a list of {entries}" if entries else "a list"
    words = {"string": "text", "boolean": "`true`, `false`"}
    return range_words(schema) or words.get(schema["type"], "a number")


def error_codes() -> set[str]:
    """All codes that the source gives errors."""
    return {code for path in SOURCE.rglob("*.py") for code in _codes(ast.parse(path.read_text()))}


def _codes(tree: ast.Module) -> Iterator[str]:
    """Those given to a call as literals, or by `words, code = "…", "a_code"`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CODES:
                given = [each.value for each in node.keywords if each.arg == "code"]
                for value in given or node.args[CODES[name] : CODES[name] + 1]:
                    yield from _literals(value)
            case ast.Assign(
                targets=[ast.Tuple(elts=[_, ast.Name(id="code"), *_])],
                value=ast.Tuple(elts=[_, value, *_]),
            ):
                yield from _literals(value)


def _literals(value: ast.AST) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z_]*[a-z]", str(node.value)):
            yield node.value
