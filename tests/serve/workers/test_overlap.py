"""One video's file is written while the next is on the device: nothing is lost, or told wrongly."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.job import Job
from entracte.serve.jobs.store import JobStore
from tests.serve.fake_runner import let_go
from tests.serve.running import Local, local, wait_for


@pytest.fixture(autouse=True)
def nothing_runs_on(shared: Local) -> Iterator[None]:
    """Also after a failure."""
    yield
    service = shared.service
    for job in (*service.store.waiting(), *service.store.running()):
        service.cancel(job)
    wait_for(lambda: service.supervisors[0].idle)


def restarts(running: Local) -> int:
    return running.service.workers()[0].restarts


def state(running: Local, video: dict[str, Any]) -> tuple[str, str | None]:
    seen = running.video(video["id"])
    return seen["status"], seen["stage"]


def finish(running: Local, video: dict[str, Any]) -> None:
    let_go(running.service.folder.video(video["id"])).touch()


def overlapping(running: Local, second: str = "steps 100000") -> list[dict[str, Any]]:
    """Two videos: one is being written, the other is on the device."""
    videos = [running.create("write-slowly"), running.create(second)]
    wait_for(lambda: running.video(videos[1]["id"])["step"] > 0)
    assert state(running, videos[0]) == ("in_progress", "mux")
    return videos


def cancel(running: Local, video: dict[str, Any]) -> None:
    running.client.post(f"/v1/videos/{video['id']}/cancel")


def test_the_next_video_begins_while_one_is_written(shared: Local) -> None:
    first, second = overlapping(shared)
    engine = wait_for(
        lambda: e if (e := shared.client.get("/v1/engine").json())["queue"]["running"] == 2 else 0
    )
    (worker,) = engine["workers"]
    assert (worker["state"], worker["video_id"]) == ("busy", second["id"])
    finish(shared, first)
    assert shared.ended(first["id"])["status"] == "completed"
    assert state(shared, second) == ("in_progress", "denoise")
    cancel(shared, second)
    shared.ended(second["id"])


def test_a_worker_whose_device_is_free_is_ready(shared: Local) -> None:
    video = shared.create("write-slowly")
    wait_for(lambda: state(shared, video) == ("in_progress", "mux"))
    (worker,) = wait_for(lambda: w if (w := shared.service.workers())[0].state == "ready" else None)
    assert worker.video_id is None
    assert not shared.service.supervisors[0].idle
    wait_for(lambda: (q := shared.service.queue.now()).running == 1 and q.seconds == 0.0)
    finish(shared, video)
    shared.ended(video["id"])


@pytest.mark.slow
def test_a_key_may_have_a_video_written_beside_the_one_it_runs(tmp_path: Path) -> None:
    with local(tmp_path / "data", max_running_per_key=1) as running:
        videos = overlapping(running)
        finish(running, videos[0])
        cancel(running, videos[1])
        for video in videos:
            running.ended(video["id"])


def test_cancelling_ends_the_writing_and_only_that(shared: Local) -> None:
    first, second = overlapping(shared)
    cancel(shared, first)
    ended = shared.ended(first["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "cancelled")
    wait_for(lambda: not shared.service.folder.of_video(first["id"]).exists())
    assert state(shared, second) == ("in_progress", "denoise")
    cancel(shared, second)
    assert shared.ended(second["id"])["error"]["code"] == "cancelled"


def test_a_failure_of_the_writing_is_of_that_video(shared: Local) -> None:
    before = restarts(shared)
    first, second = shared.create("write-refuse"), shared.create("steps 20")
    failed = shared.ended(first["id"])
    assert failed["error"]["code"] == "media_error"
    assert "/secret" not in str(failed)
    assert shared.ended(second["id"])["status"] == "completed"
    assert restarts(shared) == before


@pytest.mark.slow
@pytest.mark.parametrize("end", ["memory", "exhaust"])
def test_a_device_that_fails_does_not_take_the_written_one_along(shared: Local, end: str) -> None:
    before = restarts(shared)
    first = shared.create("write-slowly")
    second = shared.create(end)
    assert shared.ended(second["id"])["error"]["code"] == "out_of_memory"
    assert state(shared, first) == ("in_progress", "mux")
    finish(shared, first)
    assert shared.ended(first["id"])["status"] == "completed"
    assert shared.ended(shared.create()["id"])["status"] == "completed"
    assert restarts(shared) == before + 1


@pytest.mark.slow
def test_memory_that_ends_in_writing_lets_the_running_video_end(shared: Local) -> None:
    before = restarts(shared)
    first, second = shared.create("write-exhaust"), shared.create("steps 100")
    assert shared.ended(first["id"])["error"]["code"] == "out_of_memory"
    assert shared.ended(second["id"])["status"] == "completed"
    wait_for(lambda: restarts(shared) == before + 1)
    assert shared.ended(shared.create()["id"])["status"] == "completed"


@pytest.mark.slow
def test_a_crash_fails_the_video_on_the_device_and_the_written_one_begins_again(
    shared: Local,
) -> None:
    first = shared.create("write-slowly")
    second = shared.create("crash")
    assert shared.ended(second["id"])["error"]["code"] == "worker_crashed"
    job = wait_for(lambda: j if (j := shared.service.store.find(first["id"])).attempts == 2 else 0)
    assert job.error_code is None
    wait_for(lambda: state(shared, first) == ("in_progress", "mux"))
    finish(shared, first)
    assert shared.ended(first["id"])["status"] == "completed"


@pytest.mark.slow
def test_what_crashes_in_writing_is_tried_twice(shared: Local) -> None:
    failed = shared.ended(shared.create("write-crash")["id"])
    assert failed["error"]["code"] == "worker_crashed"
    assert shared.ended(shared.create()["id"])["status"] == "completed"


@pytest.mark.slow
def test_draining_finishes_both(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        first, second = overlapping(running, "steps 200")
        third = running.create()
        draining = threading.Thread(target=running.service.drain, args=(600,))
        draining.start()
        wait_for(lambda: state(running, second) == ("in_progress", "mux"))
        assert draining.is_alive()
        finish(running, first)
        draining.join()
        for video in (first, second):
            assert running.video(video["id"])["status"] == "completed"
        assert running.video(third["id"])["status"] == "queued"


@pytest.mark.slow
def test_a_stop_gives_both_back(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        videos = overlapping(running)
        running.service.stop()
        for video in videos:
            job = running.service.store.find(video["id"])
            assert job is not None
            assert (job.status, job.attempts, job.stage) == ("queued", 0, None)
        assert list(running.service.folder.videos.glob("*/*.part")) == []


@pytest.mark.slow
def test_a_database_that_fails_at_a_claim_leaves_the_written_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(tmp_path / "data") as running:
        first = running.create("write-slowly")
        wait_for(lambda: state(running, first) == ("in_progress", "mux"))
        claim, failures = JobStore.claim, iter([DatabaseError("disk full")])

        def failing(store: JobStore, *arguments: Any) -> Job | None:
            found = claim(store, *arguments)
            if found is not None:
                for failure in failures:  # the transaction ended, but nobody heard of it
                    raise failure
            return found

        monkeypatch.setattr(JobStore, "claim", failing)
        second = running.create()
        wait_for(lambda: state(running, second) == ("in_progress", "mux"))
        assert state(running, first) == ("in_progress", "mux")
        finish(running, first)
        for video in (first, second):
            assert running.ended(video["id"])["status"] == "completed"
            job = running.service.store.find(video["id"])
            assert job is not None
            assert job.attempts == 1 + (video is second)
