"""Documents point at what exists: pages, headings, files, commands and flags."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from .command_line import flags, parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SOURCES = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "deploy", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".js", ".service"} or path.parent.name in {"deploy", ".ci"}
)

# Folders whose files documents name by their path from the repository's root.
ROOTS = ("src", "tests", "benchmarks", "docs", "deploy", ".ci")

# Flags of other programs that documents name, and one that is refused.
FOREIGN_FLAGS = {"--gpus", "--num", "--slow"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def anchors(page: Path) -> set[str]:
    """What a fragment may name: GitHub's slugs of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = 0
        while (unique := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(unique)
    return found


def broken_links(page: Path) -> Iterator[str]:
    for link in links(page.read_text()):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            yield f"{link}: there is no such file"
        elif fragment and fragment not in anchors(target):
            yield f"{link}: there is no such heading"


def missing_files(text: str) -> Iterator[str]:
    """Paths in backticks that begin in one of the repository's folders."""
    for path in re.findall(r"`([\w.\-]+/[\w./\-*]*)`", text):
        if path.split("/")[0] in ROOTS and not any(ROOT.glob(path.rstrip("/"))):
            yield path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    assert list(missing_files(page.read_text())) == []


def test_documents_that_the_code_names_exist() -> None:
    named = {
        (name_of(path), document)
        for path in SOURCES
        for document in re.findall(r"docs/[\w./\-]+\.(?:md|svg|png)", path.read_text())
    }
    assert named
    assert {each for each in named if not (ROOT / each[1]).is_file()} == set()


def commands(text: str) -> list[list[str]]:
    """The arguments of every whole `entracte` command in blocks of code."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("entracte ")]
    return [words[1:] for words in found if "…" not in words]


@pytest.fixture(scope="module")
def command_line() -> argparse.ArgumentParser:
    return parser()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_can_be_parsed(page: Path, command_line: argparse.ArgumentParser) -> None:
    for arguments in commands(page.read_text()):
        command_line.parse_args(arguments)


def test_flags_exist() -> None:
    named = {
        flag
        for page in PAGES
        for flag in re.findall(r"`(?:entracte \w+ )?(--[a-z\d-]+)", page.read_text())
    }
    assert len(named) > 60
    assert named - flags(parser()) == FOREIGN_FLAGS


def test_the_architecture_names_every_room() -> None:
    package = ROOT / "src" / "entracte"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    text = (DOCS / "architecture.md").read_text()
    assert {room for room in rooms if f"`{room}`" not in text} == set()


def test_every_document_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    ahead = [DOCS / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        to = {(page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text())}
        ahead += [each for each in to if each.suffix == ".md" and each not in seen]
    assert {page for page in DOCS.rglob("*.md") if page not in seen} == set()
    pictures = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in links(page.read_text())
        if not re.match(r"\w+:", link)
    }
    assert {each for each in (DOCS / "images").iterdir() if each not in pictures} == set()


def test_checks_of_documents_find_what_is_wrong(tmp_path: Path) -> None:
    headings = tmp_path / "page.md"
    headings.write_text("# A `b`, c-d\n## Twice\n## Twice\n```\n# not a heading\n```\n")
    assert anchors(headings) == {"a-b-c-d", "twice", "twice-1"}
    assert links("[a](b.md) ![c](d.svg)\n```\n[no](no.md)\n```\n") == ["b.md", "d.svg"]
    assert commands("```sh\nentracte plan \\\n --json  # why\nentracte generate …\n```\n") == [
        ["plan", "--json"]
    ]
    assert list(missing_files("`src/entracte/gone.py` `src/entracte/*.py` `a/b`")) == [
        "src/entracte/gone.py"
    ]
