"""Faults on purpose: what a request causes is its own failure, and no wait is without end."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from entracte.request import Request
from entracte.serve import background
from entracte.serve.jobs import sqlite
from entracte.serve.jobs.database import open_database
from entracte.serve.workers import process_handle, supervisor
from tests.serve.fake_runner import OpenFake
from tests.serve.running import PATIENCE, Local, local, small, wait_for


def worker_pid(running: Local) -> int:
    process = running.service.supervisors[0]._process
    assert process is not None
    assert process.pid is not None
    return process.pid


def health(running: Local) -> tuple[int, dict[str, Any]]:
    answer = running.client.get("/health")
    return answer.status_code, answer.json()


# PendingEstimates


@pytest.mark.slow
def test_an_estimate_that_fails_leaves_the_worker_hearing(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        pid = worker_pid(running)
        # The last one never ends: what is asked after it is not known.
        for prompt in ("estimate-raises", "estimate-panics", *["estimate-hangs"] * 6):
            answer = running.client.post("/v1/videos/estimate", json=small(prompt))
            assert (answer.status_code, answer.json()["estimated_s"]) == (200, None)
        video = running.create("steps 4000")
        wait_for(lambda: running.video(video["id"])["step"] > 0)
        running.client.post(f"/v1/videos/{video['id']}/cancel")
        assert running.ended(video["id"])["error"]["code"] == "cancelled"
        assert worker_pid(running) == pid
        assert running.log.getvalue().count('"event": "an estimate failed"') == 2


def test_what_would_be_refused_is_refused_at_once(shared: Local) -> None:
    for path in ("/v1/videos/estimate", "/v1/videos"):
        answer = shared.client.post(path, json=small("estimate-refuses"))
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "prompt")
        assert "1,100 of 1,024 tokens" in error["message"]


# Work


@pytest.mark.slow
def test_a_mistake_costs_one_video_and_no_process(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        pid = worker_pid(running)
        for prompt in ("raise", "panic"):
            failed = running.ended(running.create(prompt)["id"])
            assert failed["error"]["code"] == "internal_error"
        assert running.ended(running.create()["id"])["status"] == "completed"
        assert worker_pid(running) == pid
        logged = map(json.loads, running.log.getvalue().splitlines())
        traces = [line["exception"] for line in logged if "exception" in line]
        assert ["RuntimeError" in traces[0], "Panic" in traces[1]] == [True, True]
        # What fails three times in a row is the engine.
        for _ in range(3):
            running.ended(running.create("raise")["id"])
        assert running.ended(running.create()["id"])["status"] == "completed"
        assert worker_pid(running) != pid


# Openings


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("opening", "words"),
    [
        ("raise", "the model cannot be opened: KeyError: 'num_layers'"),
        ("panic", "the model cannot be opened: Panic: index out of bounds"),
        ("die", "the worker died 2 times before it was ready (killed by SIGBUS)"),
        ("memory", "the worker died 2 times before it was ready (exit code 3)"),
    ],
)
def test_an_engine_that_never_opens_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening: Any, words: str
) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF", (0.0,))
    monkeypatch.setattr(supervisor, "MAX_OPENINGS", 2)
    with local(tmp_path / "data", OpenFake(opening=opening), ready=False) as running:
        assert wait_for(lambda: running.service.startup_error) == words
        assert health(running)[0] == 503


# A process that stands still


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LEASE_SECONDS", 4.0)
    monkeypatch.setattr(supervisor, "STOP_PATIENCE", 0.5)
    monkeypatch.setattr(process_handle, "KILL_SECONDS", 2.0)


def ask_until_full(running: Local) -> None:
    """More than a pipe can hold, of a process that reads nothing."""
    supervisor = running.service.supervisors[0]
    for _ in range(40):
        supervisor.estimate(Request("x" * 200_000), 0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_frozen_process_holds_nobody_up(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        video = running.create("freeze")["id"]
        wait_for(lambda: running.video(video)["step"] > 0)
        ask_until_full(running)
        running.client.post(f"/v1/videos/{video}/cancel")
        assert running.ended(video)["error"]["code"] in ("worker_crashed", "cancelled")
        assert running.ended(running.create()["id"])["status"] == "completed"


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_frozen_process_does_not_keep_the_server(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        video = running.create("freeze")["id"]
        wait_for(lambda: running.video(video)["step"] > 0)
        ask_until_full(running)
        stopping = threading.Thread(target=running.service.stop)
        stopping.start()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()
        assert running.service.supervisors[0].is_alive() is False


# The database


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(background, "BACK_OFF", (0.1,))
    monkeypatch.setattr(background, "PROBE_SECONDS", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_locked_database_costs_time_and_no_worker(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        pid = worker_pid(running)
        video = running.create("steps 40")["id"]
        wait_for(lambda: running.video(video)["step"] > 0)
        with locked(running.service.folder.database):
            _, told = wait_for(lambda: h if (h := health(running))[0] == 503 else None)
            assert "database is locked" in told["error"]["message"]
            refused = running.client.post("/v1/videos", json=small())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_failed")
        assert running.ended(video)["status"] == "completed"
        wait_for(lambda: health(running)[0] == 200)
        assert worker_pid(running) == pid
        assert running.log.getvalue().count('"why": "the database failed: ') < 10


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_damaged_database_is_told_of_and_ends_no_thread(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        assert health(running)[0] == 200
        path = running.service.folder.database
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 4096))
        running.service.database.dispose()  # what is cached is not damaged
        _, told = wait_for(lambda: h if (h := health(running))[0] == 503 else None)
        assert "the database failed" in told["error"]["message"]
        for method, route in (("GET", "/v1/videos"), ("POST", "/v1/videos")):
            answer = running.client.request(method, route, json=small())
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        for thread in (*running.service._threads, *running.service.supervisors):
            assert thread.is_alive()
        assert running.client.get("/liveness").status_code == 200
        assert "Traceback" not in running.log.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_goes_away_is_noticed(tmp_path: Path, replaced: bool) -> None:
    with local(tmp_path / "data") as running:
        assert health(running)[0] == 200
        path = running.service.folder.database
        for each in path.parent.glob("entracte.db*"):
            each.rename(tmp_path / each.name)
        if replaced:
            open_database(path).dispose()
        answer = running.client.post("/v1/videos", json=small())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        _, told = wait_for(lambda: h if (h := health(running))[0] == 503 else None)
        assert ("replaced" if replaced else "removed") in told["error"]["message"]
        for each in tmp_path.glob("entracte.db*"):
            each.rename(path.parent / each.name)
        wait_for(lambda: health(running)[0] == 200)
