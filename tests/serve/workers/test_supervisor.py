"""A worker's process may do anything: its job ends with a reason, and the next one is right."""

import base64
import io
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from entracte.serve import background
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.job import Completion, Job
from entracte.serve.jobs.store import JobStore
from entracte.serve.workers import supervisor
from tests.faults import full_disk
from tests.serve.fake_runner import OpenFake
from tests.serve.running import Local, local, small, wait_for


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("prompt", "code", "words"),
    [
        ("crash", "worker_crashed", "killed by SIGKILL"),
        ("raise", "internal_error", "a mistake"),
        ("panic", "internal_error", "a mistake"),
        ("exhaust", "out_of_memory", "ran out of memory"),
        ("memory", "out_of_memory", "not enough memory"),
        ("refuse", "model_error", "cannot read it"),
    ],
)
def test_a_failure_has_a_reason_and_the_next_video_is_right(
    shared: Local, prompt: str, code: str, words: str
) -> None:
    failed, next_one = shared.create(prompt), shared.create("A street")
    failed = shared.ended(failed["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", code)
    assert words in failed["error"]["message"]
    assert "/secret" not in str(failed)
    assert shared.ended(next_one["id"])["status"] == "completed"


def test_cancelling_takes_effect_at_the_next_step(shared: Local) -> None:
    video = shared.create("steps 4000")
    wait_for(lambda: shared.video(video["id"])["step"] > 0)
    shared.client.post(f"/v1/videos/{video['id']}/cancel")
    ended = shared.ended(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "cancelled")
    assert ended["progress"] < 100
    # The worker's process is the same, and free.
    assert shared.ended(shared.create()["id"])["status"] == "completed"


def test_a_running_video_that_is_deleted_leaves_nothing(shared: Local) -> None:
    video = shared.create("steps 4000")
    wait_for(lambda: shared.video(video["id"])["step"] > 0)
    assert shared.client.delete(f"/v1/videos/{video['id']}").json()["deleted"]
    assert shared.client.get(f"/v1/videos/{video['id']}").status_code == 404
    folder = shared.service.folder.of_video(video["id"])
    wait_for(lambda: not folder.exists() and video["id"] not in shared.service.store.known())


@pytest.mark.slow
def test_a_process_that_stands_still_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LEASE_SECONDS", 4.0)
    with local(tmp_path / "data") as running:
        failed = running.ended(running.create("freeze")["id"])
        assert failed["error"]["code"] == "worker_crashed"
        assert running.ended(running.create()["id"])["status"] == "completed"


def test_a_stop_gives_the_running_video_back(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        first, second = running.create("steps 400"), running.create()
        wait_for(lambda: running.video(first["id"])["step"] > 0)
        running.service.stop()
        assert running.video(first["id"])["status"] == "queued"
        assert [job.id for job in running.service.store.waiting()] == [first["id"], second["id"]]
        job = running.service.store.find(first["id"])
        assert job is not None
        assert job.attempts == 0
    with local(tmp_path / "data") as again:
        other = again.service.keys.list()[0].id  # of the server before
        assert wait_for(lambda: len(again.service.store.ended()) == 2)
        assert {job.status for job in again.service.store.page(other, None, 9)} == {"completed"}


@pytest.mark.slow
def test_a_database_that_fails_costs_neither_a_video_nor_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BACK_OFF", (0.1,))
    complete, failures = JobStore.complete, iter([DatabaseError("disk full")] * 3)

    def failing(store: JobStore, job: Job, done: Completion) -> Job | None:
        for failure in failures:
            raise failure
        return complete(store, job, done)

    monkeypatch.setattr(JobStore, "complete", failing)
    with local(tmp_path / "data") as running:
        first, second = running.create(), running.create()
        assert running.ended(first["id"])["status"] == "completed"
        assert running.ended(second["id"])["status"] == "completed"
        job = running.service.store.find(first["id"])
        assert job is not None
        assert job.attempts == 1
        assert running.service.workers()[0].restarts == 0
        assert "disk full" in running.log.getvalue()


@pytest.mark.slow
def test_a_disk_that_is_full_refuses_and_recovers(tmp_path: Path) -> None:
    picture = f"data:image/bmp;base64,{base64.b64encode(bitmap()).decode()}"
    with local(tmp_path / "data") as running:
        with full_disk(after=50_000):
            answer = running.client.post("/v1/videos", json=small(input_reference=picture))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        assert str(tmp_path) not in answer.text
        assert list(running.service.folder.videos.iterdir()) == []
        assert running.ended(running.create(input_reference=picture)["id"])["status"] == "completed"


def test_a_video_without_room_on_the_disk_fails_alone(shared: Local) -> None:
    first, second = shared.create("steps 4000"), shared.create()
    blocked = shared.service.folder.of_video(second["id"])
    blocked.write_text("no folder can be made here")
    shared.client.post(f"/v1/videos/{first['id']}/cancel")
    failed = shared.ended(second["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "storage_failed")
    blocked.unlink()
    assert shared.ended(shared.create()["id"])["status"] == "completed"


def bitmap() -> bytes:
    """An image that no format makes small."""
    file = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(file, format="BMP")
    return file.getvalue()


@pytest.mark.slow
def test_draining_finishes_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        first, second = running.create("steps 60"), running.create()
        wait_for(lambda: running.video(first["id"])["status"] == "in_progress")
        running.service.drain(20)
        assert running.video(first["id"])["status"] == "completed"
        assert running.video(second["id"])["status"] == "queued"
        refused = running.client.post("/v1/videos", json={"prompt": "Late"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"]
        assert running.client.get("/health").status_code == 503


@pytest.mark.slow
def test_health_follows_the_worker(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        assert running.client.get("/health").json() == {"status": "ready"}
        process = running.service.supervisors[0]._process
        assert process is not None
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: running.client.get("/health").status_code == 503)
        wait_for(lambda: running.client.get("/health").status_code == 200)


@pytest.mark.slow
def test_a_worker_that_cannot_open_its_engine_says_why(tmp_path: Path) -> None:
    with local(tmp_path / "data", OpenFake(opening="refuse"), ready=False) as running:
        words = wait_for(lambda: running.service.startup_error)
        assert words == "cannot read model.safetensors: there is none"
        wait_for(lambda: running.client.get("/v1/engine").json()["status"] == "down")


@pytest.mark.slow
def test_two_workers_share_the_queue(tmp_path: Path) -> None:
    with local(tmp_path / "data", OpenFake(step_s=0.03), devices=("a", "b")) as running:
        wait_for(lambda: {w.state for w in running.service.workers()} == {"ready"})
        videos = [running.create("steps 20") for _ in range(2)]
        wait_for(lambda: [running.video(v["id"])["status"] for v in videos] == ["in_progress"] * 2)
        assert {running.ended(v["id"])["status"] for v in videos} == {"completed"}
