"""What a trace holds as JSON, in the format of `docs/reference/performance-dump.md`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from entracte.residency import BlockRun, BlockWeights, Transfer
from entracte.units import MIB

from .clock import Moments
from .memory_lines import MemoryLines, memory_lines, peak_on_device
from .residency_map import STATES, residency_map
from .trace import StageSpan, Trace
from .waits import Exposure, Parts

VERSION = 1

BETWEEN = "between stages"


def closure(trace: Trace) -> dict[str, float]:
    """End to end by the host's clock, and the sum of all parts of all stages, in milliseconds."""
    return {
        "end_to_end_ms": _ms(trace.seconds),
        "parts_ms": _ms(sum(parts.total for parts in trace.parts())),
    }


def recording(trace: Trace) -> dict[str, Any] | None:
    """Everything recorded; None at level `off`."""
    if trace.record is None:
        return None
    record, moments = trace.record, trace.moments
    lines = memory_lines(record, moments)
    shown = residency_map(record, moments)
    return {
        "version": VERSION,
        "level": trace.options.level,
        "stages": _stages(trace, lines),
        "waits": [_wait(each) for each in trace.exposures],
        "transfers": _transfers(record.transfers, moments),
        "blocks": _blocks(record.blocks, moments),
        "memory": {
            name: {
                where: [[_ms(s), nbytes] for s, nbytes in line] for where, line in places.items()
            }
            for name, places in lines.items()
        },
        "residency": {
            "component": shown.component,
            "states": list(STATES),
            "blocks": [[[_ms(seconds), state] for seconds, state in line] for line in shown.blocks],
        },
    }


def distinct_names(spans: Sequence[StageSpan]) -> list[str]:
    """The names of stages; those of one name are told apart by number."""
    seen: dict[str, int] = {}
    names = []
    for span in spans:
        seen[span.name] = seen.get(span.name, 0) + 1
        names.append(span.name if seen[span.name] == 1 else f"{span.name} ({seen[span.name]})")
    return names


def _stages(trace: Trace, lines: MemoryLines) -> list[dict[str, Any]]:
    *parts, between = trace.parts()
    stages = [
        {
            "name": name,
            "start_ms": _ms(span.start),
            "duration_ms": _ms(span.seconds),
            "parts": _parts(part),
            "steps": _steps(span),
            "memory": _memory(span, lines),
        }
        for name, span, part in zip(distinct_names(trace.spans), trace.spans, parts, strict=True)
    ]
    rest = {"name": BETWEEN, "start_ms": None, "duration_ms": _ms(between.total)}
    return [*stages, rest | {"parts": _parts(between), "steps": [], "memory": None}]


def _parts(parts: Parts) -> dict[str, float]:
    return {name: _ms(seconds) for name, seconds in asdict(parts).items()}


def _steps(span: StageSpan) -> list[dict[str, float]]:
    start, steps = span.start, []
    for seconds in span.steps:
        steps.append({"start_ms": _ms(start), "duration_ms": _ms(seconds)})
        start += seconds
    return steps


def _memory(span: StageSpan, lines: MemoryLines) -> dict[str, int | None] | None:
    if span.memory is None:
        return None
    on_device = span.memory.peak_allocated_mb
    return {
        "device_bytes": round(on_device * MIB) if on_device else None,
        "weights_bytes": peak_on_device(lines, span.start, span.start + span.seconds),
        "host_bytes": round(span.memory.peak_host_anon_mb * MIB),
    }


def _wait(wait: Exposure) -> dict[str, Any]:
    return {
        "start_ms": _ms(wait.begin),
        "duration_ms": _ms(wait.end - wait.begin),
        "cause": wait.cause,
        "component": wait.component,
        "unit": wait.unit,
    }


def _transfers(transfers: Sequence[Transfer], moments: Moments) -> list[dict[str, Any]]:
    found = []
    for each in transfers:
        begin, end = moments.of(each.begin), moments.at_most(each.end)
        if begin is not None:  # else it belongs to the next generation
            found.append(
                {
                    "start_ms": _ms(begin),
                    "duration_ms": _ms(end - begin),
                    "what": each.what,
                    "lane": each.lane,
                    "component": each.component,
                    "unit": each.content.unit,
                    "weights": _weights(each.content),
                    "bytes": each.nbytes,
                }
            )
    return sorted(found, key=lambda transfer: transfer["start_ms"])


def _blocks(blocks: Sequence[BlockRun], moments: Moments) -> list[dict[str, Any]]:
    found = []
    for each in blocks:
        begin, end = moments.at_most(each.begin), moments.at_most(each.end)
        found.append(
            {
                "start_ms": _ms(begin),
                "duration_ms": _ms(end - begin),
                "component": each.component,
                "unit": each.unit,
            }
        )
    return found


def _weights(content: BlockWeights) -> str:
    if content.weights is None:
        return "factors"
    return "merged" if content.weights.adapters else "base"


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)
