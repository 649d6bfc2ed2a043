"""What keeps the rooms of the house apart, beside the imports that `make lint` checks."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import entracte
from entracte.config.base import flag_name
from entracte.config.generate import GenerateSettings
from entracte.config.serve import ServeSettings

PACKAGE = Path(entracte.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Rooms whose texts are the command's.
OF_THE_COMMAND = {"cli", "config", "doctor"}

FLAGS = {
    flag_name(name) for kind in (GenerateSettings, ServeSettings) for name in kind.model_fields
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def types_of(tree: ast.Module) -> Iterator[str]:
    """The public classes and type aliases that a module defines."""
    for node in tree.body:
        names = []
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
        yield from (name for name in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name))


def texts_of(tree: ast.Module) -> Iterator[str]:
    """All strings but docstrings."""
    of_docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in of_docs
        ):
            yield node.value


def test_a_type_name_is_defined_once() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for name in types_of(ast.parse(path.read_text())):
            homes[name].append(name_of(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_only_the_command_names_flags() -> None:
    found: dict[str, set[str]] = {}
    for path in MODULES:
        words = " ".join(texts_of(ast.parse(path.read_text())))
        if named := FLAGS.intersection(re.findall(r"--[a-z][a-z-]*", words)):
            found[name_of(path)] = named
    rooms = {name.partition("/")[0] for name in found}
    assert "cli" in rooms  # or nothing is looked for
    assert rooms <= OF_THE_COMMAND, found
