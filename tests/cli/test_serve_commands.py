"""`entracte keys`, `entracte jobs`, and what `entracte serve` refuses."""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from entracte.cli.main import run
from entracte.serve.data_folder import DataFolder
from entracte.serve.fields import VideoFields
from entracte.serve.jobs.admission import OwnerGone, QueueLimits
from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.job import Completion, Job
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.keys import KeyStore
from entracte.serve.service import new_id, new_job
from entracte.serve.submission import resolve

from ..checkpoints.test_model_header import write
from ..serve.fake_runner import OpenFake
from ..serve.running import LTX_2_3, Local, local, settings_for, small, wait_for

PROMPT, UNWANTED = "A secret garden", "a fence"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """The data folder that the commands find by themselves."""
    monkeypatch.setenv("ENTRACTE_DATA_FOLDER", str(tmp_path / "data"))
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model as far as its header goes."""
    (tmp_path / "model").mkdir()
    write(tmp_path / "model" / "checkpoint.safetensors")
    return str(tmp_path / "model")


@pytest.fixture
def store(folder: DataFolder) -> JobStore:
    database = open_database(folder.database)
    return JobStore(database, Outbox(database))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that does what it should."""
    capsys.readouterr()
    code = run(arguments)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(capsys, *arguments, "--json"))
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command prints that is refused."""
    capsys.readouterr()
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith("entracte: ")
    return line.removeprefix("entracte: ")


def submit(store: JobStore, folder: DataFolder, owner: str = "ann") -> Job:
    fields = VideoFields(**small(PROMPT, negative_prompt=UNWANTED))
    wanted = resolve(fields, settings_for(folder.root), LTX_2_3, {})
    return store.submit(new_job(new_id(), owner, 0, wanted), QueueLimits(100, 100))


def complete(store: JobStore, folder: DataFolder) -> Job:
    asked = submit(store, folder)
    job = store.claim("worker", 30)
    assert job is not None
    assert job.id == asked.id
    path = folder.video(job.id)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    done = store.complete(job, Completion({"denoise": 1.5}, 12.5, 1000))
    assert done is not None
    return done


# Keys


def test_a_key_is_shown_once(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    secret, *words = said(capsys, "keys", "add", "ann").splitlines()
    assert secret.startswith("ek-")
    assert "shown only now" in words[0]
    more = told(capsys, "keys", "add", "bob", "--priority", "3")
    assert more.keys() == {"id", "name", "key"}
    keys = told(capsys, "keys", "list")["keys"]
    assert [(key["name"], key["priority"]) for key in keys] == [("ann", 0), ("bob", 3)]
    table = said(capsys, "keys", "list")
    assert more["id"] in table
    for shown in (table, json.dumps(keys), folder.database.read_bytes().decode("latin-1")):
        assert secret not in shown
        assert more["key"] not in shown
    found = KeyStore(open_database(folder.database)).find(secret)
    assert found is not None
    assert found.name == "ann"


def test_keys_are_revoked_by_name_or_id(
    folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "keys", "add", "ann")
    bob = told(capsys, "keys", "add", "bob")
    assert said(capsys, "keys", "revoke", "ann") == "revoked ann\n"
    assert told(capsys, "keys", "revoke", bob["id"]) == {"revoked": bob["id"], "cancelled": []}
    assert "`entracte keys add NAME` makes one" in said(capsys, "keys", "list")
    assert KeyStore(open_database(folder.database)).find(bob["key"]) is None


def test_revoking_a_key_stops_its_jobs(
    folder: DataFolder, store: JobStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = (told(capsys, "keys", "add", name)["id"] for name in ("ann", "bob"))
    runs, waits, other = (submit(store, folder, owner) for owner in (ann, ann, bob))
    assert store.claim("worker", 30) is not None
    folder.of_video(waits.id).mkdir(parents=True)
    assert told(capsys, "keys", "revoke", "ann")["cancelled"] == [runs.id, waits.id]
    assert not folder.of_video(waits.id).exists()
    found = [store.find(job.id) for job in (runs, waits, other)]
    assert [job and (job.status, job.error_code, job.cancel_requested) for job in found] == [
        ("in_progress", None, True),
        ("failed", "cancelled", False),
        ("queued", None, False),
    ]
    with pytest.raises(OwnerGone):
        submit(store, folder, ann)
    assert said(capsys, "keys", "revoke", "bob", "--keep-jobs") == "revoked bob\n"
    assert [job.id for job in store.waiting()] == [other.id]


def test_keys_that_cannot_be(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "keys", "add", "ann")
    line = refused(capsys, "keys", "add", "ann")
    assert line == "there is a key named 'ann' already; revoke it first"
    for name in (" ", "x" * 101, "a\nb"):
        assert "1 to 100 printable characters" in refused(capsys, "keys", "add", name)
    assert refused(capsys, "keys", "revoke", "eve") == "there is no key named 'eve'"


def test_the_webhook_secret_stays(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    secret = told(capsys, "keys", "webhook-secret")["webhook_secret"]
    assert secret.startswith("whsec_")
    assert said(capsys, "keys", "webhook-secret") == f"{secret}\n"
    assert folder.webhook_secret.stat().st_mode & 0o077 == 0


def test_the_flag_wins_over_the_variable(
    folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    said(capsys, "keys", "add", "bob")
    said(capsys, "keys", "add", "ann", "--data-folder", str(other))
    assert [key["name"] for key in told(capsys, "keys", "list")["keys"]] == ["bob"]
    assert (other / "entracte.db").is_file()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    line = refused(capsys, "keys", "add", "ann", "--data-folder", str(tmp_path / "file" / "data"))
    assert "Not a directory" in line


# Jobs


def test_jobs_are_listed_whole_in_a_narrow_terminal(
    store: JobStore,
    folder: DataFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert said(capsys, "jobs", "list") == "There are no jobs.\n"
    done, waits = complete(store, folder), submit(store, folder)
    _, first, second = said(capsys, "jobs", "list").splitlines()
    assert first.split()[:5] == [waits.id, "queued", "0", "%", "64x64"]
    assert second.split()[:5] == [done.id, "completed", "100", "%", "64x64"]
    jobs = told(capsys, "jobs", "list", "--limit", "1")["jobs"]
    assert [job["id"] for job in jobs] == [waits.id]
    assert "prompt" not in jobs[0]


def test_prompts_are_shown_where_they_are_asked_for(
    store: JobStore, folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    job = complete(store, folder)
    for shown in (said(capsys, "jobs", "show", job.id), said(capsys, "jobs", "list", "--json")):
        assert job.id in shown
        assert PROMPT not in shown
        assert UNWANTED not in shown
    found = told(capsys, "jobs", "show", job.id, "--prompt")
    assert (found["prompt"], found["settings"]["negative_prompt"]) == (PROMPT, UNWANTED)
    assert (found["status"], found["bytes"], found["owner"]) == ("completed", 1000, "ann")


def test_a_waiting_job_is_cancelled(
    store: JobStore, folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submit(store, folder)
    assert said(capsys, "jobs", "cancel", job.id) == "it is failed\n"
    assert "failed (cancelled)" in said(capsys, "jobs", "list")
    assert told(capsys, "jobs", "cancel", job.id) == {"id": job.id, "status": "failed"}


def test_a_cancelled_job_is_announced(
    store: JobStore,
    folder: DataFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENTRACTE_WEBHOOK_URL", '["https://hooks.example/x"]')
    job = submit(store, folder)
    said(capsys, "jobs", "cancel", job.id)
    ((message,),) = Outbox(open_database(folder.database)).due(time.time())
    assert message.url == "https://hooks.example/x"
    assert job.id in message.body.decode()


@pytest.mark.parametrize("action", ["show", "cancel"])
def test_jobs_that_there_are_not(
    store: JobStore, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert "there is no job video_0; `entracte jobs list`" in refused(
        capsys, "jobs", action, "video_0"
    )
    assert run(["jobs", action, "video_0", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "RequestError"


def test_jobs_are_pruned(
    store: JobStore, folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    done, failed, waits = complete(store, folder), submit(store, folder), None
    store.cancel(failed)
    waits = submit(store, folder)
    assert "would delete 2 jobs, 1.0 kB of video" in said(capsys, "jobs", "prune", "--dry-run")
    assert told(capsys, "jobs", "prune", "--older-than", "1") == {"deleted": [], "bytes": 0}
    assert told(capsys, "jobs", "prune", "--failed")["deleted"] == [failed.id]
    assert folder.video(done.id).is_file()
    assert told(capsys, "jobs", "prune") == {"deleted": [done.id], "bytes": 1000}
    assert not folder.of_video(done.id).exists()
    assert [job.id for job in store.page(None, None, 10)] == [waits.id]


# A running server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("commands") / "data", OpenFake(step_s=0.02)) as service:
        yield service


def test_a_running_server_heeds_the_keys(
    running: Local, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--data-folder", str(running.service.folder.root))
    key = told(capsys, "keys", "add", "late", *where)["key"]

    def status() -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.get(f"{running.url}/v1/videos", headers=headers).status_code

    wait_for(lambda: status() == 200)
    said(capsys, "keys", "revoke", "late", *where)
    wait_for(lambda: status() == 401)


def test_a_running_video_is_cancelled_and_pruned(
    running: Local, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--data-folder", str(running.service.folder.root))
    video = running.create("steps 5000")["id"]
    wait_for(lambda: running.video(video)["progress"] is not None and running.video(video)["stage"])
    assert said(capsys, "jobs", "cancel", video, *where) == "it will stop at its next step\n"
    ended = running.ended(video)
    assert ended["error"]["code"] == "cancelled"
    assert video in told(capsys, "jobs", "prune", *where)["deleted"]
    assert running.client.get(f"/v1/videos/{video}").status_code == 404


# What is refused before anything is served


@pytest.fixture
def _own_log() -> Iterator[None]:
    """A server hands what libraries log to its own log; the tests have their own."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "entracte")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers = handlers


@pytest.fixture
def port() -> Iterator[int]:
    """One that somebody else listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.sampled(6)
@pytest.mark.usefixtures("_own_log", "folder")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--auth off --host 0.0.0.0",
            "--auth off lets everybody who reaches 0.0.0.0 do everything",
        ),
        ("--auth off --host ::", "--auth off lets everybody"),
        ("--auth maybe", "--auth: must be keys or off, not 'maybe'"),
        ("--default-size 9000x9000", "the default video cannot be made: "),
        ("--default-size large", "--default-size: must be a size such as 1280x720, not 'large'"),
        ("--default-seconds 100", "the default video cannot be made: "),
        ("--lora-folder nowhere", "--lora-folder nowhere is not a folder"),
        ("--keep-size lots", "--keep-size takes a size such as 24GiB"),
        ("--webhook-url nothing", "one begins with https://"),
        ("--image-host http://example.com", "is not a host; write example.com"),
        ("--allow-network here", "'here' is not a network"),
        ("--default-size 100", "--default-size: must be a size such as 1280x720, not '100'"),
        ("--port 70000", "--port: must be at most 65,535, not 70000"),
        ("--port 80s", "--port: must be a whole number, not '80s'"),
        ("--drain-seconds nan", "--drain-seconds: must be a finite number"),
        ("--model-name", "--model-name: expected at least one argument"),
        ("--modelname x", "unknown option --modelname; did you mean --model-name?"),
        ("--host 192.0.2.1", "cannot listen at 192.0.2.1:8000: "),
    ],
)
def test_settings_that_are_refused(
    capsys: pytest.CaptureFixture[str], model: str, flags: str, words: str
) -> None:
    assert words in refused(capsys, "serve", "--model", model, *flags.split())


@pytest.mark.usefixtures("_own_log", "folder")
def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], model: str, port: int) -> None:
    line = refused(capsys, "serve", "--model", model, "--port", str(port))
    assert line == f"cannot listen at 127.0.0.1:{port}: Address already in use"


@pytest.mark.usefixtures("_own_log")
def test_a_folder_that_another_server_uses(
    folder: DataFolder, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("serve", "--model", model, "--port", "0")
    with folder.locked():
        line = refused(capsys, *flags)
        assert line == f"another server uses {folder.root}; stop it, or give --data-folder"
        assert run([*flags, "--json"]) == 2
        out = json.loads(capsys.readouterr().out)
    assert out["error"]["type"] == "DataFolderError"
    assert KeyStore(open_database(folder.database)).list() == []  # none that nobody was shown


@pytest.mark.usefixtures("_own_log")
def test_a_model_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by the server, before there is a data folder."""
    flags = ["--model", str(tmp_path / "none"), "--data-folder", str(tmp_path / "data")]
    line = refused(capsys, "serve", *flags)
    assert line == f"model folder {tmp_path / 'none'} does not exist"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_is_not_whole(model: str, tmp_path: Path) -> None:
    """Found by the worker. The server ends by itself, and has made no key."""
    flags = ["--model", model, "--data-folder", str(tmp_path / "data"), "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "entracte", "serve", *flags, "--log-format", "json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2, lines
    assert lines[-1].startswith("entracte: the text encoder is missing: give --gemma-root")
    assert any("worker cannot start" in line for line in lines)
    assert "worker died" not in done.stderr
    assert "API key" not in done.stderr
    assert KeyStore(open_database(tmp_path / "data" / "entracte.db")).list() == []
    assert "Traceback" not in done.stderr


# Help


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("serve", "--drain-seconds"),
        ("keys", "webhook-secret"),
        ("keys add", "--priority"),
        ("jobs", "prune"),
        ("jobs prune", "--older-than"),
        ("jobs show", "--prompt"),
    ],
)
def test_help(capsys: pytest.CaptureFixture[str], command: str, words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert words in shown
    assert "None" not in shown
    assert "==SUPPRESS==" not in shown


@pytest.mark.parametrize("command", ["keys", "jobs", "jobs show", "keys add"])
def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str], command: str) -> None:
    line = refused(capsys, *command.split())
    assert line.startswith("the following arguments are required: ")
    assert line.endswith(f"; see `entracte {command} --help`")
