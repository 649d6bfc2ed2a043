"""The command with the demonstration model, as an operator and a client meet it."""

import signal
import time
from pathlib import Path

import av
import pytest

from .running import Command, small, wait_for


def test_a_video_over_http(command: Command, tmp_path: Path) -> None:
    with command.client() as client:
        answer = client.post("/v1/videos", json=small("A quiet street", size="120x100"))
        video = answer.json()
        assert answer.status_code == 200
        assert video["render_size"] == "128x128"
        done = wait_for(
            lambda: (
                v if (v := client.get(f"/v1/videos/{video['id']}").json())["completed_at"] else 0
            ),
        )
        assert done["status"] == "completed"
        assert done["stage_durations"]["refine"] > 0
        path = tmp_path / "video.mp4"
        path.write_bytes(client.get(f"/v1/videos/{video['id']}/content").content)
        with av.open(str(path)) as file:
            assert (file.streams.video[0].width, file.streams.video[0].height) == (120, 100)
            assert sum(1 for _ in file.decode(video=0)) == 9
            assert file.streams.audio[0].rate == 48_000
    assert "A quiet street" not in command.log
    assert command.key not in command.log


@pytest.mark.slow
def test_a_kill_of_the_whole_server_loses_nothing(command: Command) -> None:
    with command.client() as client:
        first = client.post("/v1/videos", json=small(num_inference_steps=60)).json()["id"]
        second = client.post("/v1/videos", json=small()).json()["id"]
        wait_for(lambda: client.get(f"/v1/videos/{first}").json()["progress"] > 0)
        command.stop(signal.SIGKILL)
        time.sleep(0.5)  # the worker goes by itself
        command.start()
        for video in (first, second):
            ended = wait_for(
                lambda v=video: (
                    found
                    if (found := client.get(f"/v1/videos/{v}").json())["completed_at"]
                    else None
                ),
            )
            assert ended["status"] == "completed"
