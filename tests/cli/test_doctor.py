import json
from dataclasses import fields
from pathlib import Path

import pytest

from entracte.cli.main import run
from entracte.doctor import diagnosis as planner_doctor
from entracte.doctor.diagnosis import Check
from entracte.machine.hardware import Hardware, Rates


@pytest.mark.slow
def test_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["doctor", "--device", "cpu", "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    for words in ("host memory", "matrix products", "FLOP/s (measured)", "--model"):
        assert words in out


def test_json(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--device", "cpu", "--json", "--model", str(demo_model)]
    assert run(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == {"checks", "hardware"}
    for check in shown["checks"]:
        assert check.keys() == {"name", "found", "verdict", "advice"}
        assert check["verdict"] in ("good", "warning")
    assert shown["hardware"].keys() == {field.name for field in fields(Hardware)}
    assert shown["hardware"]["rates"].keys() == {field.name for field in fields(Rates)}
    assert shown["hardware"]["unified"] is True
    # The second time it is not measured again.
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["hardware"]["rates"] == shown["hardware"]["rates"]


@pytest.mark.slow
def test_measuring_again(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--device", "cpu", "--dtype", "float32", "--json"]
    assert run(command) == 0
    before = json.loads(capsys.readouterr().out)
    assert run([*command, "--refresh"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after["hardware"]["rates"] != before["hardware"]["rates"]


@pytest.mark.slow
@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("warning", 0), ("problem", 1)])
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_exit_code(
    verdict: str,
    code: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = (Check("one", "[bold] 1", verdict, "see [2]"), Check("two", "2", "good"))
    monkeypatch.setattr(planner_doctor, "diagnose", lambda findings: checks)
    try:
        ended: object = run(["doctor", "--device", "cpu", "--dtype", "float32", *words])
    except SystemExit as exit_:
        ended = exit_.code
    assert ended == code
    out = capsys.readouterr().out
    assert verdict in out
    assert "[bold] 1" in out  # names are not markup


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--model", str(tmp_path / "gone")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run(["doctor", "--device", "toaster", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "RequestError"
