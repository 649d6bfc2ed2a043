"""The schema of a performance dump, for writing and for reading.

`docs/reference/performance-dump.md` describes it. Times are in milliseconds from the start of the
request, sizes in bytes.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    model_validator,
)

from .waits import Cause

VERSION: Literal[1] = 1
BETWEEN_STAGES = "between stages"

CLOCKS_MS = 0.05  # by how much the clocks of a device and of the host may differ
ROUNDING = 1e-3  # relative; times are written with 4 decimals

MemoryKind = Literal["device", "pinned", "pageable"]
State = Literal["disk", "host", "in flight", "device", "merged", "both"]

CAUSES: tuple[Cause, ...] = get_args(Cause)
STATES: tuple[State, ...] = get_args(State)


def _clip(duration: float) -> float:
    if duration < -CLOCKS_MS:
        raise ValueError("a duration must not be negative")
    return max(0.0, duration)


Milliseconds = Annotated[float, AfterValidator(_clip)]
Points = tuple[tuple[float, NonNegativeInt], ...]


class _DumpPart(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class DumpedSpan(_DumpPart):
    """A stretch of time."""

    start_ms: float
    duration_ms: Milliseconds

    @property
    def end_ms(self) -> float:
        return self.start_ms + self.duration_ms


class StageParts(_DumpPart):
    """What a stage's time was spent on: computing, or waiting for a cause.

    exchange: with other devices of a group; a share of the computing, by prediction.
    """

    compute: Milliseconds
    copy_: Milliseconds = Field(alias="copy")
    merge: Milliseconds
    read: Milliseconds
    launch: Milliseconds = 0.0  # older dumps have none
    exchange: Milliseconds = 0.0  # nor this
    host: Milliseconds

    def waited(self, cause: Cause) -> float:
        """The time spent waiting for one cause."""
        return {
            "copy": self.copy_,
            "merge": self.merge,
            "read": self.read,
            "launch": self.launch,
            "exchange": self.exchange,
            "host": self.host,
        }[cause]

    @property
    def stall_ms(self) -> float:
        """The time spent waiting for weights."""
        return self.copy_ + self.merge + self.read

    @property
    def total_ms(self) -> float:
        return self.compute + self.stall_ms + self.launch + self.exchange + self.host


class StageMemory(_DumpPart):
    """Peaks on the device (None without one), and the host's memory at the end."""

    device_bytes: NonNegativeInt | None
    weights_bytes: NonNegativeInt | None
    host_bytes: NonNegativeInt | None


class DumpedStage(_DumpPart):
    """A stage. start_ms: None for `between stages`, the time outside all stages."""

    name: str
    start_ms: float | None = None
    duration_ms: Milliseconds
    parts: StageParts
    steps: tuple[DumpedSpan, ...] = ()
    memory: StageMemory | None = None


class DumpedWait(DumpedSpan):
    """A time in which the device had nothing to compute."""

    cause: Cause
    component: str | None
    unit: NonNegativeInt | None


class DumpedTransfer(DumpedSpan):
    """A copy, merge or read of weights; `lane` is the queue that did it.

    peer: the rank that they were copied from, if another one.
    """

    what: Literal["copy", "merge", "read"]
    lane: str
    component: str
    unit: NonNegativeInt | None
    weights: Literal["base", "merged", "factors"]
    nbytes: NonNegativeInt = Field(alias="bytes")
    peer: NonNegativeInt | None = None


class DumpedBlock(DumpedSpan):
    """The computation of one block."""

    component: str
    unit: NonNegativeInt


class DumpedResidency(_DumpPart):
    """Where the weights of every block were.

    blocks: for each block, the times at which its state changed, and the index into `states`.
    """

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


class Recording(_DumpPart):
    """Everything that was recorded, by kind."""

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
        """The stages that have a start, with it."""
        return [(stage.start_ms, stage) for stage in self.stages if stage.start_ms is not None]


class Closure(_DumpPart):
    """The end-to-end time, and the sum of all parts of all stages."""

    end_to_end_ms: Milliseconds
    parts_ms: Milliseconds

    @property
    def share(self) -> float:
        return self.parts_ms / self.end_to_end_ms if self.end_to_end_ms else 1.0


class PlainStage(_DumpPart):
    """A stage, as in every engine's dumps."""

    name: str
    duration_ms: Milliseconds


class Checkpoint(_DumpPart):
    """Memory at the end of a stage, in MiB; None: the engine did not report it."""

    allocated_mb: float | None = None
    reserved_mb: float | None = None
    peak_allocated_mb: float | None = None
    peak_reserved_mb: float | None = None
    peak_host_anon_mb: float | None = None


class Dump(_DumpPart):
    """One run, in the shape of SGLang's dumps with `closure`, `recording` and `ranks` added.

    The first two are None in dumps of other engines and at trace level `off`. `timestamp`,
    `request_id`, `commit_hash` and `denoise_steps_ms` are written for other tools; other engines
    may put anything there. ranks: of a run on several devices, the dumps of all ranks but the
    first, in order. offset_ms: of such a dump, how much later its run began than the first rank's.
    """

    timestamp: Any = ""
    request_id: Any = ""
    commit_hash: Any = ""
    tag: str = ""
    total_duration_ms: Milliseconds
    steps: tuple[PlainStage, ...]
    denoise_steps_ms: Any = ()
    memory_checkpoints: Mapping[str, Checkpoint] = Field(default_factory=dict)
    meta: Mapping[str, Any] = Field(default_factory=dict)
    closure: Closure | None = None
    recording: Recording | None = None
    offset_ms: float = 0.0
    ranks: tuple["Dump", ...] = ()

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

    def to_json(self) -> dict[str, Any]:
        """The dump as data for a JSON file."""
        absent = {"closure", "recording"} if self.recording is None else set()
        if not self.ranks:
            absent |= {"ranks", "offset_ms"}
        return self.model_dump(mode="json", by_alias=True, exclude=absent)

    @property
    def of_all_ranks(self) -> tuple["Dump", ...]:
        """The dumps of all ranks in order, this one's first."""
        return (self, *self.ranks)

    @property
    def mode(self) -> str | None:
        """The mode, if the dump names one; for `auto`, the mode that the plan chose."""
        mode, plan = self.meta.get("mode"), self.meta.get("plan")
        if mode == "auto" and isinstance(plan, dict):
            mode = plan.get("mode", mode)
        return mode if isinstance(mode, str) else None


def _in_order(points: Sequence[tuple[float, int]], what: str) -> None:
    if any(later < earlier for (earlier, _), (later, _) in pairwise(points)):
        raise ValueError(f"{what} goes back in time")


def _agree(found: float, expected: float, what: str, other: str) -> None:
    if not math.isclose(found, expected, rel_tol=ROUNDING, abs_tol=CLOCKS_MS):
        raise ValueError(f"{what} {found:,.3f} ms, but {other} {expected:,.3f} ms")
