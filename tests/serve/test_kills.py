"""Nothing is lost by a kill: every accepted job ends once, and every completed one has its file."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from entracte.serve.data_folder import DataFolder
from entracte.serve.fields import VideoFields
from entracte.serve.jobs.admission import QueueLimits
from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.service import new_id, new_job
from entracte.serve.submission import resolve
from entracte.serve.workers import supervisor

from .fake_runner import FRAMES, OpenFake
from .running import LTX_2_3, Hooks, local, settings_for, small, wait_for

KILLS_OF_WORKERS = 88
SEED = 20261125


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    taking = Hooks()
    yield taking
    taking.close()


def check_ends(folder: Path, ids: list[str], reasons: set[str], hooks: Hooks) -> int:
    """That all have ended as they should, and that was told; how many are completed."""
    data = DataFolder(folder)
    database = open_database(data.database)
    store, completed = JobStore(database, Outbox(database)), 0
    assert {video: len(events) for video, events in hooks.told().items()} == dict.fromkeys(ids, 1)
    for video_id in ids:
        job = store.find(video_id)
        assert job is not None, "an accepted job is gone"
        assert job.ended
        if job.status == "failed":
            assert job.error_code in reasons
            assert job.error_message
            continue
        completed += 1
        with av.open(str(data.video(video_id))) as video:
            assert sum(1 for _ in video.decode(video=0)) == FRAMES
        assert data.video(video_id).stat().st_size == job.bytes
    assert {each.name for each in data.videos.iterdir()} <= set(ids)
    assert not list(data.videos.glob("*/.*.part"))
    database.dispose()
    return completed


@pytest.mark.slow
def test_the_worker_is_killed_at_random_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: Hooks
) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF", (0.0,))  # it is killed before it is ready, too
    chance = random.Random(SEED)
    with local(tmp_path / "data", OpenFake(step_s=0.01), **hooks.settings) as running:
        ids: list[str] = []
        killed = 0
        while killed < KILLS_OF_WORKERS:
            if len(running.service.store.waiting()) < 5:
                ids += [running.create(f"steps {chance.randrange(2, 12)}")["id"] for _ in range(10)]
            time.sleep(chance.uniform(0, 0.3))
            process = running.service.supervisors[0]._process
            if process is not None and process.pid is not None:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed += 1
        wait_for(lambda: len(running.service.store.ended()) == len(ids))
        wait_for(lambda: len(hooks.told()) == len(ids))
    completed = check_ends(tmp_path / "data", ids, {"worker_crashed"}, hooks)
    assert completed > 0  # a kill may meet a worker that makes nothing


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_the_server_is_killed_at_random_points(tmp_path: Path, hooks: Hooks, kills: int) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "data"
    data = DataFolder(folder)
    data.prepare()
    database = open_database(data.database)
    store = JobStore(database, Outbox(database, [hooks.url]))
    settings = settings_for(folder)

    def ask() -> str:
        wanted = resolve(
            VideoFields(**small(f"steps {chance.randrange(2, 15)}")), settings, LTX_2_3, {}
        )
        return store.submit(new_job(new_id(), "ann", 0, wanted), QueueLimits(1000, 1000)).id

    ids = [ask() for _ in range(10)]
    for _ in range(kills):
        ids += [ask() for _ in range(3)]
        server = start(folder, hooks)
        # Now and then before it is up, mostly at its work.
        if chance.random() < 0.8:
            assert server.stdout is not None
            assert server.stdout.readline() == "started\n"
        time.sleep(chance.uniform(0, 0.8))
        server.kill()
        server.wait()
    server = start(folder, hooks)
    wait_for(lambda: not store.waiting() and not store.running())
    wait_for(lambda: len(hooks.told()) == len(ids))
    server.kill()
    server.wait()
    database.dispose()
    completed = check_ends(folder, ids, {"worker_lost", "worker_crashed"}, hooks)
    assert completed > len(ids) // 2


def start(folder: Path, hooks: Hooks) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "tests.serve.killed_server", str(folder)]
    arguments.append(json.dumps(hooks.settings))
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
