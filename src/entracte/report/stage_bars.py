"""Where the time of several runs went, as bars on one time axis."""

from collections.abc import Iterator, Mapping, Sequence

from entracte.trace.dump import BETWEEN_STAGES, CAUSES, Dump
from entracte.units import duration

from .colours import OTHER_STAGES, STAGES, letters_on
from .stage_rows import StageRow, stage_rows
from .svg import document, legend, line, rect, share, text, wait_look, wait_patterns
from .time_axis import LEFT, PLOT, WIDTH, TimeScale, fitting, time_axis

Labelled = Sequence[tuple[str, Dump]]

NAME, BAR, GAP = 20, 36, 16
LEAST_WAIT = 0.3


def stage_bars(dumps: Labelled, ident: str) -> str:
    """A bar for each dump: its stages in order, and the time that each of them waited."""
    scale = TimeScale(0.0, max([dump.total_duration_ms for _, dump in dumps] + [1e-3]))
    colours = _colours([dump for _, dump in dumps])
    key, taken = legend(_legend(dumps, colours, ident), LEFT, 4, PLOT)
    top = 4 + taken + 6
    bottom = top + len(dumps) * (NAME + BAR + GAP)
    body = [f"<defs>{wait_patterns(ident)}</defs>", *key]
    for row, (label, dump) in enumerate(dumps):
        y = top + row * (NAME + BAR + GAP)
        body.append(text(LEFT, y + 14, label, "strong"))
        body.append(text(LEFT + PLOT, y + 14, _result(dump), "quiet", "end"))
        body += _bar(label, dump, scale, y + NAME, colours, ident)
    body += time_axis(scale, bottom)
    described = " ".join(f"{label}: {_result(dump)}." for label, dump in dumps)
    size = (WIDTH, bottom + 28)
    return document(body, size, ident, "Time of every stage, by run", described)


def _bar(
    label: str, dump: Dump, scale: TimeScale, y: float, colours: Mapping[str, str], ident: str
) -> Iterator[str]:
    at = 0.0
    edges = []
    for row in stage_rows(dump):
        left, right = scale.x(at), scale.x(at + row.duration_ms)
        at += row.duration_ms
        colour = colours.get(row.name, OTHER_STAGES)
        title = f"{label}: {row.name}, {row.duration_ms:,.1f} ms"
        yield rect(left, y, right - left, BAR, f'fill="{colour}"', title, 'data-part="compute"')
        free = right - left
        for cause, start, end in _waits(row, left, right):
            free = min(free, start - left)
            words = f"{label}: {row.name} waits for {cause}, {_waited(row, cause):,.1f} ms"
            more = f'data-part="{cause}"'
            yield rect(start, y, end - start, BAR, wait_look(ident, cause), words, more)
        name = fitting(row.name, free - 8)
        if name:
            yield text(left + free / 2, y + BAR / 2 + 4, name, letters_on(colour), "middle")
        if right - left > 1.5:
            edges.append(right)
    for x in edges:
        yield line("edge", x, y, x, y + BAR)


def _waits(row: StageRow, left: float, right: float) -> Iterator[tuple[str, float, float]]:
    """The waits of a stage, at its right end, in its scale: cause, and from where to where."""
    if row.parts is None or row.duration_ms <= 0:
        return
    scale = (right - left) / max(row.duration_ms, row.parts.total_ms)
    end = right
    for cause in reversed(CAUSES):
        width = row.parts.waited(cause) * scale
        if width >= LEAST_WAIT:
            yield cause, end - width, end
            end -= width


def _waited(row: StageRow, cause: str) -> float:
    parts = row.parts
    return sum(parts.waited(each) for each in CAUSES if each == cause) if parts is not None else 0.0


def _colours(dumps: Sequence[Dump]) -> dict[str, str]:
    """Distinct colours for the longest stages."""
    longest: dict[str, float] = {}
    for dump in dumps:
        for row in stage_rows(dump):
            if row.name != BETWEEN_STAGES:
                longest[row.name] = max(longest.get(row.name, 0.0), row.duration_ms)
    chosen = sorted(longest, key=lambda name: -longest[name])[: len(STAGES)]
    # In the order of the run, so that neighbours differ and the legend reads as the bar does.
    return dict(zip([name for name in longest if name in chosen], STAGES, strict=False))


def _legend(dumps: Labelled, colours: Mapping[str, str], ident: str) -> list[tuple[str, str]]:
    rows = [row for _, dump in dumps for row in stage_rows(dump)]
    entries = [(f'fill="{colour}"', name) for name, colour in colours.items()]
    if any(row.name not in colours for row in rows):
        entries.append((f'fill="{OTHER_STAGES}"', "other stages"))
    return entries + [
        (wait_look(ident, cause), f"waits: {cause}")
        for cause in CAUSES
        if any(_waited(row, cause) > 0 for row in rows)
    ]


def _result(dump: Dump) -> str:
    words = duration(dump.total_duration_ms / 1e3)
    if dump.recording is None:
        return words
    stall = sum(row.stall_ms for row in stage_rows(dump))
    if not stall:
        return f"{words}, with no wait for weights"
    waits = share(stall, dump.total_duration_ms)
    return f"{words}, of which {duration(stall / 1e3)} ({waits}) wait for weights"
