"""The documentation of the service, read by machine."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import entracte.serve

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "docs" / "serving.md"
SETTINGS = ROOT / "docs" / "settings.md"
SOURCE = Path(entracte.serve.__file__).parent

# Where the code of an error is among the arguments.
CODES = {"ApiError": 2, "bad_request": 2, "WorkFailed": 0}


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


def error_codes() -> set[str]:
    """All codes that the source gives errors."""
    return {code for path in SOURCE.rglob("*.py") for code in _codes(ast.parse(path.read_text()))}


def _codes(tree: ast.Module) -> Iterator[str]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", None) not in CODES:
            continue
        place = CODES[call.func.id]  # type: ignore[attr-defined]
        given = [each.value for each in call.keywords if each.arg == "code"]
        for value in given or call.args[place : place + 1]:
            for node in ast.walk(value):
                if isinstance(node, ast.Constant) and re.fullmatch(
                    r"[a-z_]*[a-z]", str(node.value)
                ):
                    yield node.value
