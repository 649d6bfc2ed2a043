"""A job as the database has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["queued", "in_progress", "completed", "failed"]

CANCELLED = "cancelled"
WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client asked for, checked and resolved.

    owner: the id of the key that asked. settings: the fields to ask for the same again.
    images: `{frame, strength, crf}` of every conditioning image.
    input_bytes: of the images as they are kept.
    fingerprint: of the request's content, to tell a repeated request from another one.
    """

    id: str
    owner: str
    model: str
    prompt: str
    size: str
    seconds: str
    settings: Mapping[str, Any]
    images: tuple[Mapping[str, Any], ...] = ()
    priority: int = 0
    estimated_s: float | None = None
    webhook_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    input_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One row. Times are Unix seconds.

    number: its place in the order of arrival. revision: grows with every change.
    worker, lease_until: who works on it, and until when that is believed without a heartbeat.
    """

    number: int
    id: str
    owner: str
    status: Status
    model: str
    prompt: str
    size: str
    seconds: str
    settings: dict[str, Any]
    images: list[dict[str, Any]]
    priority: int
    created_at: float
    revision: int = 0
    attempts: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    progress: int = 0
    stage: str | None = None
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    stage_durations: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    estimated_s: float | None = None
    bytes: int | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    error_code: str | None = None
    error_message: str | None = None
    worker: str | None = None
    lease_until: float | None = None
    cancel_requested: bool = False
    deleted: bool = False
    webhook_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    input_bytes: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a job is. progress: percent. seconds_left: None while unknown."""

    stage: str
    step: int
    steps: int
    progress: int
    seconds_left: float | None
    stage_durations: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Completion:
    """What there is to say of a finished video."""

    stage_durations: Mapping[str, float]
    peak_memory_mb: float | None
    bytes: int
    warnings: tuple[Mapping[str, Any], ...] = ()
