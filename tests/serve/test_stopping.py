"""SIGTERM ends the server, whatever its worker, its clients and its database do."""

import os
import signal
from pathlib import Path

import httpx2
import psutil
import pytest

from .fake_server import Process, fake_server
from .running import PATIENCE, small, wait_for

LONG_PROMPT = "steps 100000 " + "x" * 9_900


def client(server: Process) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {server.key}"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=PATIENCE)


def worker_of(server: Process) -> int:
    """The worker's process, and not the helper that multiprocessing has beside it."""
    children = psutil.Process(server.process.pid).children()
    [worker] = [each.pid for each in children if "spawn_main" in " ".join(each.cmdline())]
    return worker


def begin(server: Process, http: httpx2.Client) -> str:
    """A video that goes on and on."""
    video: str = http.post("/v1/videos", json=small("steps 100000")).json()["id"]
    wait_for(lambda: http.get(f"/v1/videos/{video}").json()["step"] > 0)
    return video


def has_ended(pid: int) -> bool:
    """Whether it runs no more; where its parent died first, nothing may clear it away."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_a_frozen_worker_that_is_asked_much(tmp_path: Path, twice: bool) -> None:
    drain = 3600.0 if twice else 0.5
    with fake_server(tmp_path / "data", drain_seconds=drain) as server, client(server) as http:
        video = begin(server, http)
        worker = worker_of(server)
        os.kill(worker, signal.SIGSTOP)
        for _ in range(30):
            answer = http.post("/v1/videos/estimate", json=small(LONG_PROMPT))
            assert answer.json()["estimated_s"] is None
        assert http.post(f"/v1/videos/{video}/cancel").status_code == 200
        assert http.get("/liveness").status_code == 200
        server.process.terminate()
        if twice:
            wait_for(lambda: http.get("/health").json()["status"] == "draining")
            server.process.terminate()
        assert server.process.wait(PATIENCE) == (-signal.SIGTERM if twice else 0)
        wait_for(lambda: has_ended(worker))
        assert "is ended" not in server.log


@pytest.mark.slow
def test_a_damaged_database(tmp_path: Path) -> None:
    with fake_server(tmp_path / "data", drain_seconds=0.5) as server, client(server) as http:
        begin(server, http)
        for path in (tmp_path / "data").glob("entracte.db*"):
            # Not cut short first: what SQLite has mapped would be gone, and end the process.
            with path.open("r+b") as file:
                file.write(os.urandom(max(8192, path.stat().st_size)))
        wait_for(lambda: http.get("/health").status_code == 503)
        assert http.post("/v1/videos", json=small()).status_code == 503
        assert http.get("/liveness").status_code == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.log
