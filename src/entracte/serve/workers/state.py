"""The state of a worker, for other threads to read."""

from dataclasses import dataclass
from typing import Literal

from .messages import MemoryReport

# failed: its engine cannot be opened with these settings.
WorkerState = Literal["starting", "warming", "ready", "busy", "restarting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """A snapshot of a worker. video_id, owner: of the video that it is making."""

    name: str
    device: str
    state: WorkerState
    video_id: str | None = None
    owner: str | None = None
    stage: str | None = None
    memory: MemoryReport | None = None
    restarts: int = 0
