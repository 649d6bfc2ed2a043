"""A worker of two devices, whose second process is killed."""

import os
import signal
from pathlib import Path

import pytest

from .running import Command, small, wait_for


def followers(of: int) -> list[int]:
    """The processes that the workers of a server started."""
    found = []
    for child in children(of):
        found += [each for each in children(child) if b"entracte.group" in command_line(each)]
    return found


def children(of: int) -> list[int]:
    tasks = Path(f"/proc/{of}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def command_line(of: int) -> bytes:
    return Path(f"/proc/{of}/cmdline").read_bytes()


@pytest.mark.slow
def test_a_rank_that_dies_fails_its_video(demo_model: Path, tmp_path: Path) -> None:
    """With the reason, and the next video is made by a group that was started again."""
    running = Command(demo_model, tmp_path / "data", "--devices", "cpu,cpu", "--mode", "resident")
    with running.client() as client:
        url = "/v1/videos"
        video = client.post(url, json=small(num_inference_steps=90)).json()["id"]
        wait_for(lambda: client.get(f"{url}/{video}").json()["progress"] > 0)
        (follower,) = followers(running.process.pid)
        os.kill(follower, signal.SIGKILL)

        def ended(video_id: str) -> dict[str, object] | None:
            found: dict[str, object] = client.get(f"{url}/{video_id}").json()
            return found if found["completed_at"] else None

        failed = wait_for(lambda: ended(video))
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "device_fault"
        assert "rank 1 (cpu) was killed by SIGKILL" in running.log
        after = client.post(url, json=small()).json()["id"]
        assert wait_for(lambda: ended(after))["status"] == "completed"
        (another,) = followers(running.process.pid)
    assert running.stop() == 0
    wait_for(lambda: not Path(f"/proc/{another}").exists())
