"""Servers and workers that share a database: what one is asked, others do and show."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from entracte.errors import RequestError
from entracte.serve.logs import open_log
from entracte.serve.node import Node
from entracte.serve.server import open_node, open_service

from .fake_runner import OpenFake
from .postgresql import Postgresql
from .running import Local, local, settings_for, wait_for


@contextmanager
def working(folder: Path, runner: OpenFake | None = None, **settings: Any) -> Iterator[Node]:
    """A node that only works, in this process."""
    log = open_log("json", StringIO())
    node = Node(settings_for(folder, **settings), lambda _: runner or OpenFake(), log)
    node.start()
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture
def servers(tmp_path: Path, postgresql: Postgresql) -> Iterator[list[Local]]:
    """Two without workers, of one database."""
    shared = {"database": postgresql.new_database(), "workers": "elsewhere", "ready": False}
    with ExitStack() as stack:
        yield [stack.enter_context(local(tmp_path / "data", **shared)) for _ in range(2)]


def listen(server: Local, path: str, until: str) -> list[tuple[str, Any]]:
    """The events of a stream, to one whose data has such a word in it."""
    found = []
    with server.client.stream("GET", path) as stream:
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            if line.startswith("data: "):
                found.append((kind, json.loads(line.removeprefix("data: "))))
                if until in line:
                    return found
    return found


def test_what_one_server_is_asked_others_make_and_show(
    servers: list[Local], tmp_path: Path
) -> None:
    first, second = servers
    assert first.client.get("/health").status_code == 503
    video = first.create(preview=True)["id"]
    second.client.headers["Authorization"] = first.client.headers["Authorization"]
    assert second.video(video)["status"] == "queued"
    with working(tmp_path / "data", database=first.service.settings.database) as node:
        seen = listen(second, f"/v1/videos/{video}/events", '"completed"')
        kinds = [kind for kind, _ in seen]
        assert kinds[-1] == "video"
        assert "preview" in kinds
        assert seen[-1][1]["status"] == "completed"
        for server in servers:
            content = server.client.get(f"/v1/videos/{video}/content")
            assert content.status_code == 200
            wait_for(lambda server=server: server.service.ready)
            (worker,) = server.client.get("/v1/engine").json()["workers"]
            assert worker["name"] == node.supervisors[0].name
        second.client.delete(f"/v1/videos/{video}")
        assert first.client.get(f"/v1/videos/{video}").status_code == 404
    wait_for(lambda: not any(server.service.ready for server in servers))


def test_a_job_runs_on_when_its_worker_is_cancelled_from_another_server(
    servers: list[Local], tmp_path: Path
) -> None:
    first, second = servers
    second.client.headers["Authorization"] = first.client.headers["Authorization"]
    with working(tmp_path / "data", database=first.service.settings.database):
        video = first.create("steps 100000")["id"]
        wait_for(lambda: second.video(video)["status"] == "in_progress")
        second.client.post(f"/v1/videos/{video}/cancel")
        assert first.ended(video)["error"]["code"] == "cancelled"


def test_a_worker_that_is_told_to_stop_gives_back_what_it_cannot_finish(
    servers: list[Local], tmp_path: Path
) -> None:
    first, _ = servers
    settings = {"database": first.service.settings.database, "drain_seconds": 0.1}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serve.fake_worker", str(tmp_path / "data")]
        + [json.dumps(settings), "0.01"],
        stderr=subprocess.DEVNULL,
    )
    video = first.create("steps 100000")["id"]
    wait_for(lambda: first.video(video)["status"] == "in_progress")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    job = first.service.store.find(video)
    assert job is not None
    assert (job.status, job.attempts) == ("queued", 0)


@pytest.mark.parametrize("database", [None, "sqlite:///other.db"])
def test_workers_elsewhere_need_a_database_that_can_be_shared(
    database: str | None, tmp_path: Path
) -> None:
    log = open_log("json", StringIO())
    settings = settings_for(tmp_path, database=database, workers="elsewhere")
    for opening in (open_service, open_node):
        with pytest.raises(RequestError, match="share a PostgreSQL database"):
            opening(settings, log)
