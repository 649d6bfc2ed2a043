"""A plan as a picture: what its stages keep on the device, as a self-contained SVG."""

from collections.abc import Iterator, Mapping, Sequence

from entracte.planner.decision import describe
from entracte.planner.prediction import Prediction
from entracte.units import GB, duration, size

from . import colours
from .colours import component_colours, letters_on
from .plan_layout import (
    ACTIVATIONS,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    ByteScale,
    StageColumn,
    columns_of,
    layers,
    lines,
    stacking,
)
from .svg import LETTER, LINE, document, legend, line, rect, safe, step_size, text

IDENT = "plan"
STALL = f'class="stall" fill="url(#{IDENT}-stalls)"'

# Over areas of any colour.
STALLS = (
    f'<pattern id="{IDENT}-stalls" width="7" height="7" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="7" height="7" fill="#000" fill-opacity="0.25"/>'
    '<path d="M2 0v7" stroke="#fff" stroke-width="2.4"/></pattern>'
)


def plan_svg(prediction: Prediction, limit: int, title: str) -> str:
    """Device memory over a request's stages, by component, with `limit` bytes as a line."""
    columns, least = columns_of(prediction.stages)
    plot = columns[-1].x + columns[-1].width - LEFT if columns else WIDTH
    names = stacking(prediction.stages)
    fills = {**component_colours(names), ACTIVATIONS: colours.ACTIVATIONS}
    boxes, tall = legend(_entries(columns, fills), LEFT, 58, plot)
    peak = max((s.peak_device_bytes for s in prediction.stages), default=0)
    scale = ByteScale(58 + tall + 26 + HEIGHT, 1.06 * max(limit, peak, 1))
    notes = _notes(prediction, peak, least)
    words = max((len(lines(c.stage.name)) for c in columns), default=1)
    below = scale.bottom + LINE * (words + 2) + 10
    summary = _summary(prediction)
    body = [
        f"<defs>{STALLS}</defs>",
        text(LEFT, 26, title, "title"),
        text(LEFT, 46, summary, "quiet"),
        *boxes,
        *_axis(scale, plot),
        *_areas(columns, names, fills, scale),
        *_inside_names(columns, names, fills, scale),
        *_stage_names(columns, scale.bottom),
        *_limit(limit, scale, plot),
        *(text(LEFT, below + LINE * row, note, "quiet") for row, note in enumerate(notes)),
    ]
    extent = LEFT + plot + RIGHT, below + LINE * len(notes) + 8
    return document(body, extent, IDENT, title, f"{summary}. {' '.join(notes)}", alone=True) + "\n"


def _areas(
    columns: Sequence[StageColumn],
    names: Sequence[str],
    fills: Mapping[str, str],
    scale: ByteScale,
) -> Iterator[str]:
    for column in columns:
        stage = column.stage
        of_stage = f'data-stage="{safe(stage.name)}"'
        for name, below, nbytes in layers(stage, names):
            top, bottom = scale.y(below + nbytes), scale.y(below)
            look = f'class="edge" fill="{fills[name]}"'
            words = f"{stage.name}: {name}, {size(nbytes)}"
            part = f'{of_stage} data-part="{safe(name)}"'
            yield rect(column.x, top, column.width, bottom - top, look, words, part)
        share = column.waiting
        if share > 0:
            top = scale.y(stage.peak_device_bytes)
            words = f"{stage.name}: waits {duration(stage.stall_s)}"
            yield rect(column.x, top, share, scale.bottom - top, STALL, words, of_stage)


def _inside_names(
    columns: Sequence[StageColumn],
    names: Sequence[str],
    fills: Mapping[str, str],
    scale: ByteScale,
) -> Iterator[str]:
    """Names in the largest area of each part, where there is room for them."""
    for name in (*names, ACTIVATIONS):
        rooms = []
        for column in columns:
            waits = column.waiting
            free = column.width - waits
            for part, below, nbytes in layers(column.stage, names):
                height = scale.y(below) - scale.y(below + nbytes)
                if part == name and height > LINE + 2 and free > LETTER * len(name) + 8:
                    at = column.x + waits + free / 2, scale.y(below + nbytes / 2) + 4
                    rooms.append((free * height, at))
        if rooms:
            _, (x, y) = max(rooms)
            yield text(x, y, name, letters_on(fills[name]), "middle")


def _stage_names(columns: Sequence[StageColumn], bottom: float) -> Iterator[str]:
    for column in columns:
        words = lines(column.stage.name)
        for row, word in enumerate(words):
            yield text(column.middle, bottom + 17 + LINE * row, word, "", "middle")
        y = bottom + 17 + LINE * len(words)
        yield text(column.middle, y, duration(column.stage.seconds), "quiet", "middle")


def _axis(scale: ByteScale, plot: float) -> Iterator[str]:
    step = step_size(scale.top_bytes / GB, 7)
    yield text(LEFT - 8, scale.y(scale.top_bytes) - 10, "GB", "quiet", "end")
    for number in range(int(scale.top_bytes / GB / step) + 1):
        y = scale.y(number * step * GB)
        yield line("grid" if number else "axis", LEFT, y, LEFT + plot, y)
        yield text(LEFT - 8, y + 4, f"{number * step:g}", "quiet", "end")


def _limit(limit: int, scale: ByteScale, plot: float) -> Iterator[str]:
    y = scale.y(limit)
    end = LEFT + plot + 4
    yield line("limit", LEFT, y, end, y)
    yield text(end + 4, y - 3, "limit", "limit-name")
    yield text(end + 4, y + 11, size(limit), "limit-name")


def _entries(columns: Sequence[StageColumn], fills: Mapping[str, str]) -> list[tuple[str, str]]:
    """The legend: how each part looks, and its name with the most that a stage has of it."""
    stages = [column.stage for column in columns]
    most = {name: max((s.weights.get(name, 0) for s in stages), default=0) for name in fills}
    most[ACTIVATIONS] = max((stage.activations for stage in stages), default=0)
    entries = [(f'fill="{fills[name]}"', f"{name} {size(b)}") for name, b in most.items()]
    if any(column.waiting for column in columns):
        entries.append((STALL, "waits for weights"))
    return entries


def _summary(p: Prediction) -> str:
    waits = p.stall_s + p.switch_s
    return (
        f"{describe(p)}: {duration(p.latency_s)}, of which {duration(waits)} wait for weights; "
        f"at most {size(p.peak_device_bytes)} of the device and {size(p.peak_host_bytes)} of the "
        "host"
    )


def _notes(p: Prediction, peak: int, least: float) -> list[str]:
    notes = ["Each stage at its peak; widths by time."]
    if least:
        notes[0] += f" Stages under {duration(least)} are drawn wider than their time."
    if p.peak_device_bytes > peak:
        notes.append(
            f"Before the first request, preparing weights takes {size(p.peak_device_bytes)}."
        )
    return notes
