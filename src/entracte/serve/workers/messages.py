"""The messages between server and worker: plain data, pickled through a pipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entracte.request import Request


@dataclass(frozen=True, slots=True)
class RunJob:
    """Make a video. output: where the file goes."""

    job_id: str
    request: Request
    output: str
    previews: bool = False


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Stop that job at its next step."""

    job_id: str


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """Ask how long a request would take. number: returned in the reply."""

    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Release all memory, and exit."""


ToWorker = RunJob | CancelJob | EstimateRequest | Shutdown


@dataclass(frozen=True, slots=True)
class Warming:
    """The model is open; its weights are being loaded."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker takes jobs. device: its name."""

    device: str


@dataclass(frozen=True, slots=True)
class StartupFailed:
    """The engine cannot be opened with these settings. message: for the operator."""

    message: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker is alive."""


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator. level: as the logging module has it. trace: of an error."""

    level: int
    name: str
    message: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """How far the work is. fraction: 0 to 1. stage_durations: of the stages that are done."""

    job_id: str
    stage: str
    step: int
    steps: int
    fraction: float
    seconds_left: float | None
    stage_durations: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Weights of a component. where: device, pinned, pageable, or peer: on the group's others."""

    component: str
    where: str
    content: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What the worker has of memory. device figures: None where there is no device but the host.

    mode: where the transformer's weights live. plan: the planner's words for it.
    """

    rows: tuple[MemoryRow, ...]
    device_total: int | None
    device_used: int | None
    host_used: int
    mode: str | None
    plan: str | None


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A small picture of what is being made, WebP."""

    job_id: str
    step: int
    image: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The file is there, whole. warnings: `{lora, message, keys}`, for the client."""

    job_id: str
    seconds: float
    stage_durations: Mapping[str, float]
    peak_memory_mb: float | None
    bytes: int
    warnings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no file. message: for the client, without paths. detail: for the operator's log.

    fatal: the process ends, too.
    """

    job_id: str
    code: str
    message: str
    detail: str = ""
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class EstimateReply:
    """How long it would take, in seconds; None where nobody can tell.

    code, message: why it would be refused, in a client's words.
    """

    number: int
    seconds: float | None = None
    code: str = ""
    message: str = ""


FromWorker = (
    Warming
    | Ready
    | StartupFailed
    | Heartbeat
    | Log
    | Step
    | MemoryReport
    | PreviewImage
    | Done
    | Failed
    | EstimateReply
)
