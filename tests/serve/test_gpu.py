"""A device whose memory really runs out."""

from pathlib import Path

import pytest
import torch

from .running import Command, small, wait_for

LEFT = 1_500_000_000


@pytest.mark.gpu
def test_memory_that_runs_out_fails_one_video(demo_model: Path, tmp_path: Path) -> None:
    running = Command(demo_model, tmp_path / "data", "--device", "cuda")
    free, _ = torch.cuda.mem_get_info()
    others = torch.empty(free - LEFT, dtype=torch.uint8, device="cuda")
    try:
        with running.client() as client:

            def ended(**fields: object) -> dict[str, object]:
                video = client.post("/v1/videos", json=small(**fields)).json()["id"]
                found: dict[str, object] = wait_for(
                    lambda: (
                        v
                        if (v := client.get(f"/v1/videos/{video}").json())["completed_at"]
                        else None
                    ),
                )
                return found

            failed = ended(size="1920x1088", num_frames=257, num_inference_steps=1)
            assert failed["status"] == "failed"
            assert failed["error"]["code"] == "out_of_memory", failed  # type: ignore[index]
            assert ended()["status"] == "completed"
            del others
            torch.cuda.empty_cache()
            assert ended(size="512x512")["status"] == "completed"
            assert client.get("/health").status_code == 200
    finally:
        running.stop()
