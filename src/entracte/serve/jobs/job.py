"""A job: a requested video, from submission to completion. One row of the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sqlalchemy import JSON, Float, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

Status = Literal["queued", "in_progress", "completed", "failed"]

CANCELLED = "cancelled"
WORKER_LOST = "worker_lost"

# The file of a first attempt.
FIRST_FILE = "video.mp4"


class Base(DeclarativeBase):
    """Of all tables."""

    metadata = MetaData()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Float,
        str: Text,
        dict[str, Any]: JSON,
        dict[str, float]: JSON,
        list[dict[str, Any]]: JSON,
    }


class Job(MappedAsDataclass, Base, kw_only=True):
    """Times are Unix seconds. Only a `JobStore` changes a job once it is submitted.

    number: its place in the order of arrival. owner: the id of the key that submitted it.
    settings: the fields of a request for the same video.
    images: `{frame, strength, crf}` of every conditioning image.
    revision: grows with every change. progress: percent.
    worker, lease_until: the worker that runs it, and until when without a heartbeat.
    fingerprint: a hash of the request, to recognise repetitions.
    input_bytes: of the images as stored. file: the name of the finished one.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("by_turn", "status", "priority", "number"),
        Index("by_owner", "owner", "number"),
        Index("by_lease", "status", "lease_until"),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    id: Mapped[str] = mapped_column(String(38), unique=True)
    owner: Mapped[str] = mapped_column(String(40))
    status: Mapped[Status] = mapped_column(String(12), default="queued")
    model: Mapped[str]
    prompt: Mapped[str]
    size: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[str] = mapped_column(String(20))
    settings: Mapped[dict[str, Any]]
    images: Mapped[list[dict[str, Any]]] = mapped_column(default_factory=list)
    priority: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(init=False)
    revision: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[float | None] = mapped_column(default=None)
    completed_at: Mapped[float | None] = mapped_column(default=None)
    expires_at: Mapped[float | None] = mapped_column(default=None)
    progress: Mapped[int] = mapped_column(default=0)
    stage: Mapped[str | None] = mapped_column(default=None)
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    seconds_left: Mapped[float | None] = mapped_column(default=None)
    stage_durations: Mapped[dict[str, float]] = mapped_column(default_factory=dict)
    peak_memory_mb: Mapped[float | None] = mapped_column(default=None)
    estimated_s: Mapped[float | None] = mapped_column(default=None)
    bytes: Mapped[int | None] = mapped_column(default=None)
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(default_factory=list)
    error_code: Mapped[str | None] = mapped_column(String(40), default=None)
    error_message: Mapped[str | None] = mapped_column(default=None)
    worker: Mapped[str | None] = mapped_column(String(80), default=None)
    lease_until: Mapped[float | None] = mapped_column(default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)
    webhook_url: Mapped[str | None] = mapped_column(default=None)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), default=None)
    fingerprint: Mapped[str] = mapped_column(String(64), default="")
    input_bytes: Mapped[int] = mapped_column(default=0)
    file: Mapped[str] = mapped_column(String(80), default=FIRST_FILE, server_default=FIRST_FILE)

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")

    @property
    def output(self) -> str:
        """The name of the file of its present attempt. Each has its own: a worker that lost its
        job without knowing cannot replace what the next one wrote.
        """
        return FIRST_FILE if self.attempts <= 1 else f"video-{self.attempts}.mp4"


@dataclass(frozen=True, slots=True)
class Advance:
    """The progress of a job. progress: percent. seconds_left: None while unknown."""

    stage: str
    step: int
    steps: int
    progress: int
    seconds_left: float | None
    stage_durations: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Completion:
    """What is stored of a finished video."""

    stage_durations: Mapping[str, float]
    peak_memory_mb: float | None
    bytes: int
    warnings: tuple[Mapping[str, Any], ...] = ()
    file: str = FIRST_FILE
