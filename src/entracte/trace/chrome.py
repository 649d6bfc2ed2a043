"""A dump as a Chrome trace, for Perfetto and chrome://tracing."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entracte.files import write_atomically

from .dump import Dump, DumpedSpan, MemoryKind, Points, Recording
from .read_dump import DumpError

PLACES: tuple[MemoryKind, ...] = ("device", "pinned", "pageable")
# The order of the known lanes; others come after them.
LANES = ("compute", "copies", "on_demand", "merges", "reader", "host")

# Overlaps of two spans of a thread below this come from rounding, or from two clocks.
SLACK_NS = 50_000


@dataclass(slots=True)
class ThreadSpan:
    """A span in whole nanoseconds, so that neighbours meet exactly."""

    name: str
    begin: int
    end: int
    args: dict[str, Any] = field(default_factory=dict)


def chrome_trace(dump: Dump) -> dict[str, Any]:
    """The dump in the Trace Event Format, each rank as a process.

    Raises DumpError where the dump has no recording.
    """
    ranks = dump.of_all_ranks
    earliest = min(each.offset_ms for each in ranks)
    events: list[dict[str, Any]] = []
    for number, each in enumerate(ranks):
        name = " ".join(word for word in (each.tag, each.mode) if word) or "entracte"
        title = name if len(ranks) == 1 else f"rank {number}: {name}"
        later = round((each.offset_ms - earliest) * 1e3, 3)
        for event in _process(each, title):
            event["pid"] = number + 1
            event["ts"] += later
            events.append(event)
        if len(ranks) > 1:
            events.append(_named("process_sort_index", 0, sort_index=number) | {"pid": number + 1})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": _other(dump)}


def _process(dump: Dump, name: str) -> Iterator[dict[str, Any]]:
    """The events of one rank, whose process is not known yet."""
    recording = dump.recording
    if recording is None:
        raise DumpError(
            "the dump has no recording, from which a Chrome trace is made: another engine or an "
            "older version made it"
        )
    yield _named("process_name", 0, name=name)
    thread = 0
    for title, spans in _threads(recording):
        for number, track in enumerate(_tracks(spans), 1):
            thread += 1
            shown = title if number == 1 else f"{title} ({number})"
            yield _named("thread_name", thread, name=shown)
            yield _named("thread_sort_index", thread, sort_index=thread)
            yield from (_complete(event, thread) for event in track)
    for place in PLACES:
        held = {name: places[place] for name, places in recording.memory.items() if place in places}
        yield from _counters(place, held)


def write_chrome_trace(path: Path, trace: Mapping[str, Any]) -> None:
    """Write a trace, whole or not at all. Raises MediaError."""
    with write_atomically(path) as part:
        part.write_text(json.dumps(trace) + "\n", encoding="utf-8")


def _threads(recording: Recording) -> Iterator[tuple[str, list[ThreadSpan]]]:
    """The threads from top to bottom, and what is on them."""
    stages = recording.timed_stages
    yield (
        "stages",
        [
            _event(
                s.name,
                DumpedSpan(start_ms=start, duration_ms=s.duration_ms),
                **s.parts.model_dump(),
            )
            for start, s in stages
        ],
    )
    yield (
        "steps",
        [
            _event(f"{stage.name} {number}", step, stage=stage.name)
            for stage in recording.stages
            for number, step in enumerate(stage.steps, 1)
        ],
    )
    yield (
        "blocks",
        [
            _event(f"block {run.unit}", run, component=run.component, unit=run.unit)
            for run in recording.blocks
        ],
    )
    yield (
        "waits",
        [
            _event(f"wait: {w.cause}", w, cause=w.cause, component=w.component, unit=w.unit)
            for w in recording.waits
        ],
    )
    lanes: dict[str, list[ThreadSpan]] = {}
    for t in recording.transfers:
        args = {
            "component": t.component,
            "unit": t.unit,
            "weights": t.weights,
            "from rank": t.peer,
            "bytes": t.nbytes,
            "rate GB/s": round(t.nbytes / t.duration_ms / 1e6, 3) if t.duration_ms else None,
        }
        where = t.component if t.unit is None else f"{t.component} {t.unit}"
        source = "" if t.peer is None else f" from rank {t.peer}"
        lanes.setdefault(t.lane, []).append(_event(f"{t.what} {where}{source}", t, **args))
    for lane in sorted(lanes, key=lambda lane: (lane not in LANES, _place_of(lane), lane)):
        yield f"lane: {lane}", lanes[lane]


def _place_of(lane: str) -> int:
    return LANES.index(lane) if lane in LANES else len(LANES)


def _event(name: str, span: DumpedSpan, **args: Any) -> ThreadSpan:
    begin, end = round(span.start_ms * 1e6), round(span.end_ms * 1e6)
    return ThreadSpan(name, begin, end, {key: v for key, v in args.items() if v is not None})


def _tracks(events: Iterable[ThreadSpan]) -> Iterator[list[ThreadSpan]]:
    """The events in as few rows as possible, without overlaps in a row."""
    rows: list[list[ThreadSpan]] = []
    for event in sorted(events, key=lambda e: (e.begin, e.end)):
        row = next((row for row in rows if row[-1].end - event.begin <= SLACK_NS), None)
        if row is None:
            rows.append([event])
            continue
        # A viewer drops spans that cross, by however little.
        event.begin = max(event.begin, row[-1].end)
        event.end = max(event.begin, event.end)
        row.append(event)
    yield from rows


def _complete(event: ThreadSpan, thread: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": event.name,
        "cat": "entracte",
        "tid": thread,
        "ts": event.begin / 1e3,
        "dur": (event.end - event.begin) / 1e3,
        "args": event.args,
    }


def _named(what: str, thread: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "tid": thread, "ts": 0, "args": args}


def _counters(place: MemoryKind, held: Mapping[str, Points]) -> Iterator[dict[str, Any]]:
    """The bytes of every component in a place, at every change."""
    changes: dict[float, dict[str, int]] = {}
    for name, points in held.items():
        for ms, nbytes in points:
            changes.setdefault(ms, {})[name] = nbytes
    now = dict.fromkeys(held, 0)
    for ms in sorted(changes):
        now |= changes[ms]
        yield {
            "ph": "C",
            "name": f"{place} memory (bytes)",
            "cat": "entracte",
            "tid": 0,
            "ts": round(ms * 1e6) / 1e3,
            "args": dict(now),
        }


def _other(dump: Dump) -> dict[str, Any]:
    """What has no event in a trace."""
    other: dict[str, Any] = {"tag": dump.tag, "end_to_end_ms": dump.total_duration_ms}
    if dump.mode is not None:
        other["mode"] = dump.mode
    if dump.closure is not None:
        other["parts_ms"] = dump.closure.parts_ms
    stages: Sequence[Any] = dump.recording.stages if dump.recording is not None else ()
    other["between_stages_ms"] = sum(s.duration_ms for s in stages if s.start_ms is None)
    return other
