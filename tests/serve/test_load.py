"""A hundred clients at once, and a bounded queue; a restart in the midst of it."""

import asyncio
from pathlib import Path

import httpx2
import psutil
import pytest

from .fake_runner import OpenFake
from .running import Local, local, small, wait_for

CLIENTS = 100
QUEUE = 30


async def ask_all(running: Local) -> list[httpx2.Response]:
    """Every client asks for one video, all at once."""
    headers = {"Authorization": f"Bearer {running.key}"}
    limits = httpx2.Limits(max_connections=CLIENTS)
    async with httpx2.AsyncClient(
        base_url=running.url, headers=headers, limits=limits, timeout=60
    ) as client:
        return await asyncio.gather(
            *(client.post("/v1/videos", json=small(f"steps {4 + n % 3}")) for n in range(CLIENTS))
        )


@pytest.mark.slow
def test_accepted_ones_finish_in_order_and_others_are_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    runner = OpenFake(step_s=0.02, estimate_s=3.0)
    with local(tmp_path / "data", runner, max_queued=QUEUE) as running:
        answers = asyncio.run(ask_all(running))
        granted = [a.json()["id"] for a in answers if a.status_code == 200]
        refused = [a for a in answers if a.status_code != 200]
        assert QUEUE <= len(granted) <= QUEUE + 10  # some were done meanwhile
        assert {a.status_code for a in refused} == {429}
        for answer in refused:
            assert answer.json()["error"]["code"] == "queue_full"
            # What the running video is expected to need, at most.
            assert 1 <= int(answer.headers["retry-after"]) <= 3
        wait_for(lambda: len(running.service.store.ended()) == len(granted))
        jobs = running.service.store.page(None, None, CLIENTS, newest_first=False)
        assert {job.id for job in jobs} == set(granted)
        assert {job.status for job in jobs} == {"completed"}
        starts = [job.started_at for job in jobs]
        assert starts == sorted(starts, key=lambda start: start or 0.0)


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    process = psutil.Process()
    with local(tmp_path / "data", OpenFake(step_s=0.0), max_queued=QUEUE) as running:
        asyncio.run(ask_all(running))
        wait_for(lambda: not running.service.store.waiting())
        before = process.memory_info().rss
        for _ in range(3):
            asyncio.run(ask_all(running))
            wait_for(lambda: not running.service.store.waiting())
        assert process.memory_info().rss - before < 30 * 2**20


@pytest.mark.slow
def test_a_restart_keeps_the_queue_and_its_order(tmp_path: Path) -> None:
    with local(tmp_path / "data", OpenFake(step_s=0.05)) as running:
        asked = [running.create(f"steps {20 + n}")["id"] for n in range(8)]
        wait_for(lambda: running.video(asked[1])["status"] != "queued")
    with local(tmp_path / "data", OpenFake(step_s=0.001)) as again:
        wait_for(lambda: len(again.service.store.ended()) == len(asked))
        jobs = again.service.store.page(None, None, 20, newest_first=False)
        assert [job.id for job in jobs] == asked
        assert {job.status for job in jobs} == {"completed"}
        starts = [job.started_at or 0.0 for job in jobs]
        assert starts == sorted(starts)
