"""Work of one kind, or of one client, waits for nothing else."""

import contextlib
import socket
import threading
from typing import Any

import anyio
import pytest

from entracte.serve.http.turns import Turns

from ..running import Local, small
from .asking import request

SECONDS = 20.0

# That the framework has for routes without threads of their own.
THREADS = 40


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Runs until it is let go. running: whose."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self.go = threading.Event()

    def __call__(self, owner: str) -> str:
        self.running.append(owner)
        self.most = max(self.most, len(self.running))
        assert self.go.wait(SECONDS)
        self.running.remove(owner)
        return owner


@pytest.mark.anyio
async def test_an_owner_has_its_share_and_no_more() -> None:
    turns, work, done = Turns(at_once=3, each=2), Work(), []

    async def ask(owner: str) -> None:
        done.append(await turns.run(owner, work, owner))

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask, "greedy")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ask, "patient")
            while "patient" not in work.running:
                await anyio.sleep(0)
            assert work.running.count("greedy") == 2
            work.go.set()
    assert sorted(done) == ["greedy"] * 5 + ["patient"]
    assert work.most <= 3
    assert not turns._owners


@pytest.mark.anyio
async def test_what_fails_gives_its_turn_back() -> None:
    turns = Turns(1, 1)

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await turns.run("ann", fail)
    assert await turns.run("ann", len, "abc") == 3
    assert not turns._owners


def test_the_server_says_that_it_lives_whatever_it_is_busy_with(
    shared: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More requests than there are threads, all waiting for a database that is locked."""
    go, within = threading.Event(), threading.Semaphore(0)
    page = shared.service.store.page

    def locked(*arguments: Any) -> Any:
        within.release()
        assert go.wait(SECONDS)
        return page(*arguments)

    monkeypatch.setattr(shared.service.store, "page", locked)
    port = int(shared.url.rpartition(":")[2])
    data = request("GET", "/v1/videos", f"Authorization: Bearer {shared.key}")
    with contextlib.ExitStack() as held:
        asked = []
        for _ in range(THREADS + 20):
            connection = socket.create_connection(("127.0.0.1", port), SECONDS)
            asked.append(held.enter_context(connection))
            connection.sendall(data)
        for _ in range(THREADS):
            assert within.acquire(timeout=SECONDS)
        assert shared.client.get("/liveness").status_code == 200
        assert shared.client.get("/health").status_code == 200
        assert shared.client.post("/v1/videos", json=small()).status_code == 200
        go.set()
        for connection in asked:
            assert connection.recv(12) == b"HTTP/1.1 200"
