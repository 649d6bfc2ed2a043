"""From a trace to a performance dump, and to its file."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from entracte.files import write_atomically
from entracte.residency import BlockRun, BlockWeights, Transfer
from entracte.units import MIB

from .clock import Moments
from .dump import (
    BETWEEN_STAGES,
    STATES,
    VERSION,
    Checkpoint,
    Closure,
    Dump,
    DumpedBlock,
    DumpedResidency,
    DumpedSpan,
    DumpedStage,
    DumpedTransfer,
    DumpedWait,
    PlainStage,
    Recording,
    StageMemory,
    StageParts,
)
from .memory_lines import MemoryLines, memory_lines, peak_on_device
from .residency_map import residency_map
from .trace import StageSpan, Trace
from .waits import Exposure, Parts


def perf_dump(trace: Trace, meta: dict[str, Any], tag: str = "entracte") -> Dump:
    """The dump of a trace, without prompts and paths. At level `off` it has no recording."""
    names = _distinct_names(trace.spans)
    recording = _recording(trace, names)
    steps = enumerate(seconds for span in trace.spans for seconds in span.steps)
    return Dump(
        timestamp=datetime.fromtimestamp(trace.created, UTC).isoformat(),
        request_id=uuid.uuid4().hex,
        tag=tag,
        total_duration_ms=trace.seconds * 1e3,
        steps=tuple(
            PlainStage(name=name, duration_ms=span.seconds * 1e3)
            for name, span in zip(names, trace.spans, strict=True)
        ),
        denoise_steps_ms=[{"step": step, "duration_ms": s * 1e3} for step, s in steps],
        memory_checkpoints={
            name: Checkpoint(**asdict(span.memory))
            for name, span in zip(names, trace.spans, strict=True)
            if span.memory is not None
        },
        meta=meta | {"counts": trace.counts},
        closure=None if recording is None else _closure(trace),
        recording=recording,
    )


def with_ranks(leader: Dump, followers: Sequence[Dump]) -> Dump:
    """The dump of a group: that of its first rank, with those of the others, in their order.

    All are of one request, on one machine, whose clock says how much later each began.
    """
    if not followers:
        return leader
    began = _began(leader)
    ranks = tuple(
        each.model_copy(
            update={"offset_ms": _began(each) - began, "meta": {**leader.meta, **each.meta}}
        )
        for each in followers
    )
    return leader.model_copy(update={"ranks": ranks})


def write_perf_dump(path: Path, dump: Dump) -> None:
    """Write a dump, whole or not at all. Raises MediaError."""
    with write_atomically(path) as part:
        part.write_text(json.dumps(dump.to_json(), indent=1) + "\n")


def _began(dump: Dump) -> float:
    """Milliseconds since the epoch."""
    return datetime.fromisoformat(dump.timestamp).timestamp() * 1e3


def _closure(trace: Trace) -> Closure:
    return Closure(
        end_to_end_ms=_ms(trace.seconds), parts_ms=_ms(sum(p.total for p in trace.parts()))
    )


def _recording(trace: Trace, names: Sequence[str]) -> Recording | None:
    if trace.record is None or trace.options.level == "off":
        return None
    record, moments = trace.record, trace.moments
    lines = memory_lines(record, moments)
    shown = residency_map(record, moments)
    return Recording(
        version=VERSION,
        level=trace.options.level,
        stages=_stages(trace, names, lines),
        waits=tuple(map(_wait, trace.exposures)),
        transfers=_transfers(record.transfers, moments),
        blocks=tuple(_block(each, moments) for each in record.blocks)
        if trace.options.level == "blocks"
        else (),
        memory={
            name: {place: _points(line) for place, line in places.items()}
            for name, places in lines.items()
        },
        residency=DumpedResidency(
            component=shown.component, states=STATES, blocks=tuple(map(_points, shown.blocks))
        ),
    )


def _distinct_names(spans: Sequence[StageSpan]) -> list[str]:
    """The names of stages; a repeated name gets a number."""
    seen: dict[str, int] = {}
    names = []
    for span in spans:
        seen[span.name] = seen.get(span.name, 0) + 1
        names.append(span.name if seen[span.name] == 1 else f"{span.name} ({seen[span.name]})")
    return names


def _stages(trace: Trace, names: Sequence[str], lines: MemoryLines) -> tuple[DumpedStage, ...]:
    *parts, between = trace.parts()
    stages = [
        DumpedStage(
            name=name,
            start_ms=_ms(span.start),
            duration_ms=_ms(span.seconds),
            parts=_parts(part),
            steps=_steps(span),
            memory=_memory(span, lines),
        )
        for name, span, part in zip(names, trace.spans, parts, strict=True)
    ]
    rest = DumpedStage(name=BETWEEN_STAGES, duration_ms=_ms(between.total), parts=_parts(between))
    return (*stages, rest)


def _parts(parts: Parts) -> StageParts:
    return StageParts(
        compute=_ms(parts.compute),
        copy=_ms(parts.copy),
        merge=_ms(parts.merge),
        read=_ms(parts.read),
        launch=_ms(parts.launch),
        exchange=_ms(parts.exchange),
        host=_ms(parts.host),
    )


def _steps(span: StageSpan) -> tuple[DumpedSpan, ...]:
    start, steps = span.start, []
    for seconds in span.steps:
        steps.append(DumpedSpan(start_ms=_ms(start), duration_ms=_ms(seconds)))
        start += seconds
    return tuple(steps)


def _memory(span: StageSpan, lines: MemoryLines) -> StageMemory | None:
    if span.memory is None:
        return None
    on_device = span.memory.peak_allocated_mb
    return StageMemory(
        device_bytes=round(on_device * MIB) if on_device else None,
        weights_bytes=peak_on_device(lines, span.start, span.start + span.seconds),
        host_bytes=round(span.memory.peak_host_anon_mb * MIB),
    )


def _wait(wait: Exposure) -> DumpedWait:
    return DumpedWait(
        start_ms=_ms(wait.begin),
        duration_ms=_ms(wait.end - wait.begin),
        cause=wait.cause,
        component=wait.component,
        unit=wait.unit,
    )


def _transfers(transfers: Sequence[Transfer], moments: Moments) -> tuple[DumpedTransfer, ...]:
    found = []
    for each in transfers:
        begin, end = moments.of(each.begin), moments.at_most(each.end)
        if begin is not None:  # else it belongs to the next generation
            found.append(
                DumpedTransfer(
                    start_ms=_ms(begin),
                    duration_ms=_ms(end - begin),
                    what=each.what,
                    lane=each.lane,
                    component=each.component,
                    unit=each.content.unit,
                    weights=_weights(each.content),
                    bytes=each.nbytes,
                    peer=each.peer,
                )
            )
    return tuple(sorted(found, key=lambda transfer: transfer.start_ms))


def _block(block: BlockRun, moments: Moments) -> DumpedBlock:
    begin, end = moments.at_most(block.begin), moments.at_most(block.end)
    return DumpedBlock(
        start_ms=_ms(begin),
        duration_ms=_ms(end - begin),
        component=block.component,
        unit=block.unit,
    )


def _weights(content: BlockWeights) -> Literal["base", "merged", "factors"]:
    if content.weights is None:
        return "factors"
    return "merged" if content.weights.adapters else "base"


def _points(line: Sequence[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    return tuple((_ms(seconds), value) for seconds, value in line)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)
