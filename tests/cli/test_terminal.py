"""What others wrote reaches a terminal as text: it steers nothing, and is no markup."""

import unicodedata
from pathlib import Path

import pytest

from entracte.cli.main import run
from entracte.cli.terminal import BIDI_CONTROLS, REPLACED, clean
from entracte.serve.data_folder import DataFolder
from entracte.serve.fields import VideoFields
from entracte.serve.jobs.admission import QueueLimits
from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.service import new_id, new_job
from entracte.serve.submission import resolve

from ..serve.running import LTX_2_3, settings_for, small

# What is written, and what may be seen of it.
HOSTILE = [
    ("\x1b]0;PWNED\x07title", "\ufffd]0;PWNED\ufffdtitle"),
    ("\x1b[2J\x1b[1;31mred", "\ufffd[2J\ufffd[1;31mred"),
    ("\x9b2Jc1 \x85next", "\ufffd2Jc1 \ufffdnext"),
    ("back\b\b\rspace\x7f\x00", "back\ufffd\ufffd\ufffdspace\ufffd\ufffd"),
    ("\u202egpj.exe\u2066\u200f\u061c", "\ufffdgpj.exe\ufffd\ufffd\ufffd"),
    ("no \udcff text", "no \ufffd text"),
    ("a\u2028b\u2029c", "a\ufffdb\ufffdc"),
    ("[bold]loud[/bold]", "[bold]loud[/bold]"),
    ("a [/foo] b [/x]", "a [/foo] b [/x]"),
    ("[link=https://evil.example]click[/link]", "[link=https://evil.example]click[/link]"),
    (":skull: and :pile_of_poo:", ":skull: and :pile_of_poo:"),
    ("größe, 灯台, एक दीपस्तंभ, \N{BRAIN}", "größe, 灯台, एक दीपस्तंभ, \N{BRAIN}"),
]
EACH = pytest.mark.parametrize(("text", "shown"), HOSTILE, ids=[ascii(t)[:20] for t, _ in HOSTILE])


def require_harmless(out: str) -> None:
    for character in out:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cs"), ascii(out)
        assert character not in BIDI_CONTROLS, ascii(out)


@EACH
def test_text_is_cleaned(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean(f"one\n{text}", lines=True) == f"one\n{shown}"
    assert clean("one\ntwo") == f"one{REPLACED}two"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    monkeypatch.setenv("ENTRACTE_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    made = DataFolder(tmp_path / "data")
    made.prepare()
    return made


@pytest.mark.sampled(4)
@EACH
def test_a_clients_words_are_shown_to_the_operator(
    folder: DataFolder, capsys: pytest.CaptureFixture[str], text: str, shown: str
) -> None:
    if any(unicodedata.category(character) == "Cs" for character in text):
        pytest.skip("no request can carry these")
    database = open_database(folder.database, make=True)
    store = JobStore(database, Outbox(database))
    wanted = resolve(VideoFields(**small(text)), settings_for(folder.root), LTX_2_3, {})
    job = store.submit(new_job(new_id(), "ann", 0, wanted), QueueLimits(100, 100))
    assert run(["jobs", "show", job.id, "--prompt"]) == 0
    assert run(["jobs", "list"]) == 0
    out = capsys.readouterr().out
    assert shown in out
    require_harmless(out)


@pytest.mark.sampled(4)
@EACH
def test_errors_repeat_words_as_text(
    capsys: pytest.CaptureFixture[str], text: str, shown: str
) -> None:
    name = text.replace("\0", "")
    for arguments in (
        ["inspect", f"gone/{name}.safetensors"],
        ["report", f"gone/{name}.json"],
        ["jobs", "list", f"--{name}"],
        ["generate", "--prompt", "a", "--seed", name],
        ["doctor", "--model", f"gone/{name}"],
    ):
        assert run(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("entracte: ")
        require_harmless(captured.err)
        require_harmless(captured.out)


@pytest.mark.sampled(1)
@EACH
def test_names_of_files_are_text(
    tmp_path: Path,
    demo_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    shown: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    model = tmp_path / f"model {text}".replace("\0", "").replace("/", "")
    model.symlink_to(demo_model)
    assert run(["inspect", str(model)]) == 0
    captured = capsys.readouterr()
    assert shown.replace("/", "").rstrip(REPLACED) in captured.out
    require_harmless(captured.out)
