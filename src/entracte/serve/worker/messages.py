"""What server and worker tell each other. Plain data: it is pickled through a pipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Work:
    """Make a video. request: the arguments of a `Request`. output: where the file goes."""

    job_id: str
    request: Mapping[str, Any]
    output: str
    previews: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop that work at its next step."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """How long would this take?"""

    number: int
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stop:
    """Give all memory back, and end."""


ToWorker = Work | Cancel | Ask | Stop


@dataclass(frozen=True, slots=True)
class Warming:
    """The model is open; its weights are being brought."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Work may come. device: its name."""

    device: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine cannot be opened as it is told to; the words are for the operator."""

    message: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker lives."""


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
    """Weights of a component. where: device, pinned or pageable."""

    component: str
    where: str
    content: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
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
class Preview:
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
class Answer:
    """How long it would take, in seconds; None where nobody can tell.

    code, message: why it would be refused, in a client's words.
    """

    number: int
    seconds: float | None = None
    code: str = ""
    message: str = ""


FromWorker = (
    Warming | Ready | Refused | Beat | Log | Step | Memory | Preview | Done | Failed | Answer
)
