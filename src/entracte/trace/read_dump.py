"""A performance dump, read back and checked; `docs/reference/performance-dump.md`.

Times are in milliseconds after the request began, sizes in bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from entracte.errors import EntracteError

from .waits import Cause

VERSION = 1
BETWEEN_STAGES = "between stages"

# Two clocks, a device's and the host's, may differ by this much.
CLOCKS_MS = 0.05
# By how much of the whole the parts may miss their sum: what writing decimals takes away.
ROUNDING = 1e-3

MemoryKind = Literal["device", "pinned", "pageable"]
State = Literal["disk", "host", "in flight", "device", "merged", "both"]

CAUSES: tuple[Cause, ...] = ("copy", "merge", "read", "host")


class DumpError(EntracteError):
    """A performance dump cannot be read, or does not hold what was asked of it."""


def _clip(duration: float) -> float:
    if duration < -CLOCKS_MS:
        raise ValueError("a duration must not be negative")
    return max(0.0, duration)


Milliseconds = Annotated[float, AfterValidator(_clip)]
Points = tuple[tuple[float, NonNegativeInt], ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class DumpedSpan(_Frozen):
    """A stretch of time."""

    start_ms: float
    duration_ms: Milliseconds

    @property
    def end_ms(self) -> float:
        return self.start_ms + self.duration_ms


class StageParts(_Frozen):
    """What a stage's time was spent on."""

    compute: Milliseconds
    copy_: Milliseconds = Field(alias="copy")
    merge: Milliseconds
    read: Milliseconds
    host: Milliseconds

    def waited(self, cause: Cause) -> float:
        """The time that was waited for one cause."""
        return {"copy": self.copy_, "merge": self.merge, "read": self.read, "host": self.host}[
            cause
        ]

    @property
    def stall_ms(self) -> float:
        """The time that was waited for weights."""
        return self.copy_ + self.merge + self.read

    @property
    def total_ms(self) -> float:
        return self.compute + self.stall_ms + self.host


class StageMemory(_Frozen):
    """Peaks on the device, and the host's memory at the end; device_bytes None: no device."""

    device_bytes: NonNegativeInt | None
    weights_bytes: NonNegativeInt | None
    host_bytes: NonNegativeInt | None


class DumpedStage(_Frozen):
    """start_ms: None for what lies between the stages."""

    name: str
    start_ms: float | None = None
    duration_ms: Milliseconds
    parts: StageParts
    steps: tuple[DumpedSpan, ...] = ()
    memory: StageMemory | None = None


class DumpedWait(DumpedSpan):
    """A time in which nothing computed."""

    cause: Cause
    component: str | None
    unit: NonNegativeInt | None


class DumpedTransfer(DumpedSpan):
    """Work on weights, on a queue of its own or not."""

    what: Literal["copy", "merge", "read"]
    lane: str
    component: str
    unit: NonNegativeInt | None
    weights: Literal["base", "merged", "factors"]
    nbytes: NonNegativeInt = Field(alias="bytes")


class DumpedBlock(DumpedSpan):
    """A block computed."""

    component: str
    unit: NonNegativeInt


class DumpedResidency(_Frozen):
    """blocks: for each, when it came into which of `states`."""

    component: str
    states: tuple[State, ...]
    blocks: tuple[Points, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, changes in enumerate(self.blocks):
            _in_order(changes, f"block {number}")
            if any(state >= len(self.states) for _, state in changes):
                raise ValueError(f"block {number} has a state that `states` does not name")
        return self


class Recording(_Frozen):
    """Everything that happened, by kind."""

    version: Literal[1]
    level: Literal["stages", "blocks"]
    stages: tuple[DumpedStage, ...]
    waits: tuple[DumpedWait, ...]
    transfers: tuple[DumpedTransfer, ...]
    blocks: tuple[DumpedBlock, ...]
    memory: Mapping[str, Mapping[MemoryKind, Points]]
    residency: DumpedResidency | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage in self.stages:
            if stage.start_ms is None and stage.name != BETWEEN_STAGES:
                raise ValueError(f"stage {stage.name} has no start")
        starts = [stage.start_ms for stage in self.stages if stage.start_ms is not None]
        if any(later < earlier for earlier, later in pairwise(starts)):
            raise ValueError("the stages are not in the order of time")
        for component, places in self.memory.items():
            for place, points in places.items():
                _in_order(points, f"the {place} memory of {component}")
        return self

    @property
    def timed_stages(self) -> list[tuple[float, DumpedStage]]:
        """Every stage that has a place in time, with its start."""
        return [(stage.start_ms, stage) for stage in self.stages if stage.start_ms is not None]


class Closure(_Frozen):
    """The whole, and what its parts add up to."""

    end_to_end_ms: Milliseconds
    parts_ms: Milliseconds

    @property
    def share(self) -> float:
        return self.parts_ms / self.end_to_end_ms if self.end_to_end_ms else 1.0


class PlainStage(_Frozen):
    """A stage as every engine's dump has it."""

    name: str
    duration_ms: Milliseconds


class Checkpoint(_Frozen):
    """Memory at the end of a stage, in MiB."""

    allocated_mb: float | None = None
    peak_allocated_mb: float | None = None


class Dump(_Frozen):
    """One run. recording: None where another engine, or an older version, made the dump."""

    total_duration_ms: Milliseconds
    tag: str = ""
    meta: Mapping[str, Any] = Field(default_factory=dict)
    steps: tuple[PlainStage, ...]
    memory_checkpoints: Mapping[str, Checkpoint] = Field(default_factory=dict)
    closure: Closure | None = None
    recording: Recording | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        recording, closure = self.recording, self.closure
        if recording is None:
            return self
        if closure is not None:
            parts = sum(stage.parts.total_ms for stage in recording.stages)
            _agree(parts, closure.parts_ms, "the parts of the stages add up to", "closure says")
            whole = closure.end_to_end_ms
            _agree(self.total_duration_ms, whole, "total_duration_ms is", "closure says")
        for start, stage in recording.timed_stages:
            if start + stage.duration_ms > self.total_duration_ms * (1 + ROUNDING) + CLOCKS_MS:
                raise ValueError(f"stage {stage.name} ends after the run does")
        return self

    @property
    def mode(self) -> str | None:
        """How the weights were held, where the dump says so; of `auto`, what the plan chose."""
        mode, plan = self.meta.get("mode"), self.meta.get("plan")
        if mode == "auto" and isinstance(plan, dict):
            mode = plan.get("mode", mode)
        return mode if isinstance(mode, str) else None


def read_dump(path: Path) -> Dump:
    """Read and check a dump. Raises DumpError, which says what is wrong with the file and where."""
    data = _read_json(path)
    if not isinstance(data, dict) or "total_duration_ms" not in data or "steps" not in data:
        raise DumpError(
            f"{path} is not a performance dump; `entracte generate` writes one to `perf_dump_path`",
            settings=("perf_dump_path",),
        )
    recording = data.get("recording")
    if isinstance(recording, dict) and recording.get("version") != VERSION:
        raise DumpError(
            f"{path} has a recording of version {recording.get('version')!r}; this entracte reads "
            f"version {VERSION}"
        )
    try:
        return Dump.model_validate(data)
    except ValidationError as error:
        raise DumpError(f"{path} is inconsistent: {_said(error)}") from error


def _read_json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DumpError(f"there is no file {path}") from error
    except OSError as error:
        raise DumpError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DumpError(f"{path} is not a performance dump: it is not text") from error
    if not text.strip():
        raise DumpError(f"{path} is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if _cut_off(text, error):
            last = text.rstrip().count("\n") + 1
            raise DumpError(f"{path} ends too early, in line {last}: it was cut off") from error
        raise DumpError(f"{path} is not JSON: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise DumpError(f"{path} is not a performance dump: it is nested too deeply") from error


def _cut_off(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text is only the beginning of JSON."""
    rest = text[error.pos :].strip()
    # The end of what was cut may be half a number or word, but closes nothing.
    half = len(rest) < len("\\uffff") + 2 and not rest.endswith(("}", "]"))
    return half or error.msg.startswith("Unterminated")


def _said(error: ValidationError) -> str:
    """The first of the errors, and where it is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _in_order(points: Sequence[tuple[float, int]], what: str) -> None:
    if any(later < earlier for (earlier, _), (later, _) in pairwise(points)):
        raise ValueError(f"{what} goes back in time")


def _agree(found: float, expected: float, what: str, other: str) -> None:
    if not math.isclose(found, expected, rel_tol=ROUNDING, abs_tol=CLOCKS_MS):
        raise ValueError(f"{what} {found:,.3f} ms, but {other} {expected:,.3f} ms")
