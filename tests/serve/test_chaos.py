"""Whatever fails in a fleet: every accepted video ends exactly once, and whole if completed."""

import json
import random
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import httpx2
import pytest

from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore

from .fake_runner import FRAMES
from .postgresql import NO_POSTGRESQL, Postgresql, programs
from .proxy import Proxy
from .running import Hooks, small, wait_for

SEED = 20261127

# What a video may fail with here: it met two failures of its worker.
REASONS = {"worker_lost", "worker_crashed"}


@dataclass(frozen=True)
class Scale:
    """How many of each there are, and how often each thing fails."""

    servers: int
    workers: int
    clients: int
    videos: int
    kills: int
    restarts: int
    cuts: int


SMALL = Scale(1, 2, 4, 16, 2, 1, 1)
LARGE = Scale(3, 4, 20, 200, 30, 5, 10)


@dataclass
class Fleet:
    """Processes that share a database through a network that can be cut."""

    folder: Path
    postgresql: Postgresql
    proxy: Proxy
    settings: dict[str, Any]
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    key: str = ""

    def start_worker(self) -> None:
        self.workers.append(self._start("worker", {"drain_seconds": 0}, "0.02"))

    def start_server(self, number: int) -> subprocess.Popen[str]:
        more = {"port": self.ports[number], "workers": "elsewhere"}
        return self._start("server", more)

    def first_key(self) -> str:
        """The key that the first server makes when it is up."""
        assert self.servers[0].stdout is not None
        return self.servers[0].stdout.readline().split()[1]

    def end(self) -> None:
        for process in (*self.workers, *self.servers):
            process.kill()
            process.wait()

    def _start(self, role: str, more: dict[str, Any], *words: str) -> subprocess.Popen[str]:
        name = f"{role}-{uuid.uuid4().hex[:6]}"
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.serve.chaos_node", role, str(self.folder / name)]
                + [json.dumps(self.settings | more), *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )


@contextmanager
def fleet(folder: Path, scale: Scale, hooks: Hooks) -> Iterator[Fleet]:
    with Postgresql() as postgresql:
        proxy = Proxy(postgresql.port)
        database = postgresql.new_database()
        settings = {
            "database": database.replace(f":{postgresql.port}/", f":{proxy.port}/"),
            "storage": (folder / "videos").as_uri(),
            "max_queued": 10_000,
            "max_queued_per_key": 10_000,
        } | hooks.settings
        made = Fleet(folder, postgresql, proxy, settings, ports=free_ports(scale.servers))
        try:
            made.servers.append(made.start_server(0))
            made.key = made.first_key()
            made.servers += [made.start_server(number) for number in range(1, scale.servers)]
            for _ in range(scale.workers):
                made.start_worker()
            yield made
        finally:
            made.end()
            proxy.close()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def ask(made: Fleet, number: int) -> str:
    """Ask one server after the other until one accepts a video; its id."""
    headers = {"Authorization": f"Bearer {made.key}", "Idempotency-Key": f"video {number}"}
    steps = 2 + number % 9
    with httpx2.Client(headers=headers, timeout=30, verify=False) as client:
        for attempt in range(10_000):
            port = made.ports[(number + attempt) % len(made.ports)]
            url = f"http://127.0.0.1:{port}/v1/videos"
            try:
                answer = client.post(url, json=small(f"steps {steps}"))
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                return str(answer.json()["id"])
            assert answer.status_code in (429, 503), answer.text
            time.sleep(0.2)
    raise AssertionError("nobody accepts a video")


def harm(made: Fleet, scale: Scale, hooks: Hooks, chance: random.Random) -> None:
    """All failures, in a random order, each once more videos have ended."""
    actions = ["kill"] * scale.kills + ["restart"] * scale.restarts + ["cut"] * scale.cuts
    chance.shuffle(actions)
    for number, action in enumerate(actions):
        ended = scale.videos * number // (len(actions) + 1)
        wait_for(lambda ended=ended: len(hooks.told()) >= ended)
        time.sleep(chance.uniform(0, 0.5))  # not always right after an end
        if action == "kill" and len(made.ports) > 1 and chance.random() < 0.3:
            which = chance.randrange(len(made.servers))
            made.servers[which].kill()
            made.servers[which].wait()
            made.servers[which] = made.start_server(which)
        elif action == "kill":
            worker = made.workers.pop(chance.randrange(len(made.workers)))
            worker.kill()
            worker.wait()
            made.start_worker()
        elif action == "restart":
            made.postgresql.stop()
            time.sleep(chance.uniform(0, 1))
            made.postgresql.start()
        else:
            made.proxy.cut()
            time.sleep(chance.uniform(0.2, 2))
            made.proxy.heal()


@pytest.mark.skipif(programs() is None, reason=NO_POSTGRESQL)
@pytest.mark.parametrize(
    "scale", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_every_accepted_video_ends_once(tmp_path: Path, scale: Scale) -> None:
    hooks, chance = Hooks(), random.Random(SEED)
    with fleet(tmp_path, scale, hooks) as made:
        with ThreadPoolExecutor(scale.clients + 1) as threads:
            harmed = threads.submit(harm, made, scale, hooks, chance)
            ids = list(threads.map(lambda number: ask(made, number), range(scale.videos)))
            harmed.result()
        assert len(set(ids)) == scale.videos
        engine = open_database(made.settings["database"])
        store = JobStore(engine, Outbox(engine))
        wait_for(lambda: not store.waiting() and not store.running())
        wait_for(lambda: hooks.told().keys() >= set(ids))
        jobs = store.page(None, None, 10 * scale.videos)
        engine.dispose()
    hooks.close()
    assert {job.id for job in jobs} == set(ids)
    assert Counter(len(events) for events in hooks.told().values()) == {1: scale.videos}
    for job in jobs:
        assert job.ended
        if job.status == "failed":
            assert job.error_code in REASONS, (job.error_code, job.error_message)
            continue
        path = tmp_path / "videos" / job.id / job.file
        assert path.stat().st_size == job.bytes
        with av.open(str(path)) as video:
            assert sum(1 for _ in video.decode(video=0)) == FRAMES
    completed = sum(job.status == "completed" for job in jobs)
    assert completed > scale.videos // 2
    print(f"{completed} of {scale.videos} completed")
