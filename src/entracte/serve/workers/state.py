"""What is known of a worker, as those who ask may read it."""

from dataclasses import dataclass
from typing import Literal

from .messages import MemoryReport

# failed: its engine cannot be opened as it is told to.
WorkerState = Literal["starting", "warming", "ready", "busy", "restarting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """A moment of a worker. video_id, owner: of what it is making."""

    name: str
    device: str
    state: WorkerState
    video_id: str | None = None
    owner: str | None = None
    stage: str | None = None
    memory: MemoryReport | None = None
    restarts: int = 0
