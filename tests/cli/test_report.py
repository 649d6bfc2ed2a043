import argparse
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from entracte.cli import report
from entracte.errors import EntracteError, MediaError
from entracte.trace.read_dump import DumpError
from tests.trace.sample_dump import plain, resident, snapshot_low_vram, write


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def dump(tmp_path: Path) -> str:
    return str(write(tmp_path, snapshot_low_vram(), "first.json"))


def called(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    report.add_parser(parser.add_subparsers())
    options = parser.parse_args(["report", *flags])
    assert isinstance(options.json, bool)
    options.run(options)
    return options


def test_the_page_is_written(dump: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called(dump)
    assert "wrote report.html" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "first (snapshot)" in page


def test_several_dumps_of_one_name(
    dump: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    again = str(write(tmp_path / "b", snapshot_low_vram(slow=2.0), "first.json"))
    other = str(write(tmp_path, plain(), "other.json"))
    called(dump, again, other, "-o", "all.html", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "all.html"
    assert told["bytes"] == Path("all.html").stat().st_size
    assert told["labels"] == ["first (snapshot)", "first (snapshot) #2", "other"]


def test_the_map_alone(dump: str, tmp_path: Path) -> None:
    called(dump, "--map-svg", "map.svg")
    root = ElementTree.parse("map.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not Path("report.html").exists()


def test_no_map_of_another_engines_dump(tmp_path: Path) -> None:
    other = str(write(tmp_path, plain(), "other.json"))
    with pytest.raises(DumpError, match="no residency map"):
        called(other, "--map-svg", "map.svg")
    assert not Path("map.svg").exists()


def test_all_dumps_are_checked_first(dump: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(DumpError, match="bad.json"):
        called(dump, str(bad))
    with pytest.raises(DumpError, match="bad.json"):
        called(dump, str(bad), "--map-svg", "map.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"first.json", "bad.json"}


def test_nothing_is_overwritten_unasked(dump: str) -> None:
    Path("report.html").write_text("mine")
    with pytest.raises(MediaError, match="--force"):
        called(dump)
    assert Path("report.html").read_text() == "mine"
    called(dump, "--force")
    assert "first (snapshot)" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)],
)
def test_on_a_terminal_it_asks(
    answer: str, yes: bool, dump: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("report.html").write_text("mine")
    asked = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", asked)
    if yes:
        called(dump)
    else:
        with pytest.raises(MediaError, match="left as it is"):
            called(dump)
    assert "Overwrite it?" in asked.getvalue()
    assert (Path("report.html").read_text() != "mine") == yes


def test_a_program_is_never_asked(dump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("report.html").write_text("mine")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    monkeypatch.setattr("sys.stderr", Terminal())
    with pytest.raises(MediaError, match="--force"):
        called(dump, "--json")


def test_a_dump_is_never_overwritten(dump: str, tmp_path: Path) -> None:
    before = Path(dump).read_text()
    with pytest.raises(MediaError, match="one of the dumps"):
        called(dump, "-o", "first.json", "--force")
    assert Path(dump).read_text() == before


@pytest.mark.parametrize(
    "flags",
    [
        ("-o", "absent/report.html"),
        ("-o", "."),
        ("-o", "a.html", "--map-svg", "a.svg"),
    ],
)
def test_outputs_that_cannot_be(flags: tuple[str, ...], dump: str) -> None:
    with pytest.raises(EntracteError):
        called(dump, *flags)


def test_modes_are_in_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called(str(write(tmp_path, resident(), "a.json")), "--json")
    assert json.loads(capsys.readouterr().out)["labels"] == ["a (resident)"]


def test_ranks_of_a_group_are_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rank = snapshot_low_vram() | {"timestamp": "2026-11-26T12:00:00+00:00"}
    (tmp_path / "two.json").write_text(json.dumps(rank | {"ranks": [rank | {"offset_ms": 1.5}]}))
    called("two.json", "--json")
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert [label.rpartition(", ")[2] for label in labels] == ["rank 0", "rank 1"]
