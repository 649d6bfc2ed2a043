"""A plan as a picture: what its stages keep on the device, as a self-contained SVG."""

import re
from collections.abc import Iterator, Sequence
from html import escape

from entracte.planner.decision import said
from entracte.planner.prediction import Prediction
from entracte.units import duration, size

from .plan_layout import (
    ACTIVATIONS,
    COLOURS,
    GB,
    HEIGHT,
    LEFT,
    LETTER,
    LINE,
    RIGHT,
    WIDTH,
    Column,
    Scale,
    colour,
    columns_of,
    layers,
    lines,
    stacking,
)

STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2126; }
.title { font-size: 16px; font-weight: 600; }
.quiet { fill: #5b626b; }
.inside { fill: #ffffff; }
.paper { fill: #ffffff; }
.grid { stroke: #d9dde2; }
.axis { stroke: #5b626b; }
.area { stroke: #ffffff; stroke-width: 0.6; }
.limit { stroke: #c0272d; stroke-width: 1.6; stroke-dasharray: 7 4; }
.limit-name { fill: #c0272d; font-weight: 600; }
.hatch { stroke: #ffffff; stroke-width: 2.4; }
.stall { fill: url(#stalls); stroke: #ffffff; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ed; }
  .quiet { fill: #a2aab4; }
  .inside { fill: #ffffff; }
  .paper { fill: #16191d; }
  .grid { stroke: #343a42; }
  .axis { stroke: #a2aab4; }
  .area { stroke: #16191d; }
  .limit { stroke: #ff7b72; }
  .limit-name { fill: #ff7b72; }
}
@media print {
  text { fill: #000000; }
  .inside { fill: #ffffff; }
  .paper { fill: #ffffff; }
  .grid { stroke: #d9dde2; }
  .area { stroke: #ffffff; }
  .limit { stroke: #c0272d; }
  .limit-name { fill: #c0272d; }
  rect { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def plan_svg(prediction: Prediction, limit: int, title: str) -> str:
    """Device memory over a request's stages, by component, with `limit` bytes as a line."""
    columns, least = columns_of(prediction.stages)
    plot = columns[-1].x + columns[-1].width - LEFT if columns else WIDTH
    names = stacking(prediction.stages)
    legend = list(_legend(columns, names, plot))
    head = 62 + LINE * (1 + max(row for row, _, _, _ in legend))
    peak = max((s.peak_device_bytes for s in prediction.stages), default=0)
    scale = Scale(head + 22 + HEIGHT, 1.06 * max(limit, peak, 1))
    notes = _notes(prediction, peak, least)
    words = max((len(lines(c.stage.name)) for c in columns), default=1)
    below = scale.bottom + LINE * (words + 2) + 10
    width, height = LEFT + plot + RIGHT, below + LINE * len(notes) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" role="img" aria-labelledby="title">',
        f'<title id="title">{_safe(title)}</title>',
        f"<style>{STYLE}</style>",
        '<defs><pattern id="stalls" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="hatch" x1="2" y1="0" x2="2" y2="7"/>'
        "</pattern></defs>",
        f'<rect class="paper" width="{_n(width)}" height="{_n(height)}"/>',
        _text(LEFT, 26, title, "title"),
        _text(LEFT, 46, _summary(prediction), "quiet"),
        *_drawn_legend(legend),
        *_axis(scale, plot),
        *_areas(columns, names, scale),
        *_inside_names(columns, names, scale),
        *_stage_names(columns, scale.bottom),
        *_limit(limit, scale, plot),
        *(_text(LEFT, below + LINE * row, note, "quiet") for row, note in enumerate(notes)),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _areas(columns: Sequence[Column], names: Sequence[str], scale: Scale) -> Iterator[str]:
    for column in columns:
        stage = column.stage
        for name, below, nbytes in layers(stage, names):
            top, bottom = scale.y(below + nbytes), scale.y(below)
            yield (
                f'<rect class="area" data-stage="{_safe(stage.name)}" data-part="{_safe(name)}" '
                f'x="{_n(column.x)}" y="{_n(top)}" width="{_n(column.width)}" '
                f'height="{_n(bottom - top)}" fill="{colour(name, names)}">'
                f"<title>{_safe(f'{stage.name}: {name}, {size(nbytes)}')}</title></rect>"
            )
        share = column.waiting
        if share > 0:
            top = scale.y(stage.peak_device_bytes)
            yield (
                f'<rect class="stall" data-stage="{_safe(stage.name)}" x="{_n(column.x)}" '
                f'y="{_n(top)}" width="{_n(share)}" height="{_n(scale.bottom - top)}">'
                f"<title>{_safe(f'{stage.name}: waits {duration(stage.stall_s)}')}</title></rect>"
            )


def _inside_names(columns: Sequence[Column], names: Sequence[str], scale: Scale) -> Iterator[str]:
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
            yield _text(x, y, name, "inside", "middle")


def _stage_names(columns: Sequence[Column], bottom: float) -> Iterator[str]:
    for column in columns:
        words = lines(column.stage.name)
        for row, word in enumerate(words):
            yield _text(column.middle, bottom + 17 + LINE * row, word, "", "middle")
        y = bottom + 17 + LINE * len(words)
        yield _text(column.middle, y, duration(column.stage.seconds), "quiet", "middle")


def _axis(scale: Scale, plot: float) -> Iterator[str]:
    step = next(
        s
        for power in range(-9, 9)
        for s in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if scale.top_bytes / GB / s <= 7
    )
    yield _text(LEFT - 8, scale.y(scale.top_bytes) - 10, "GB", "quiet", "end")
    for number in range(int(scale.top_bytes / GB / step) + 1):
        y = scale.y(number * step * GB)
        kind = "grid" if number else "axis"
        yield f'<line class="{kind}" x1="{LEFT}" y1="{_n(y)}" x2="{_n(LEFT + plot)}" y2="{_n(y)}"/>'
        yield _text(LEFT - 8, y + 4, f"{number * step:g}", "quiet", "end")


def _limit(limit: int, scale: Scale, plot: float) -> Iterator[str]:
    y = scale.y(limit)
    end = LEFT + plot + 4
    yield f'<line class="limit" x1="{LEFT}" y1="{_n(y)}" x2="{_n(end)}" y2="{_n(y)}"/>'
    yield _text(end + 4, y - 3, "limit", "limit-name")
    yield _text(end + 4, y + 11, size(limit), "limit-name")


def _legend(
    columns: Sequence[Column], names: Sequence[str], plot: float
) -> Iterator[tuple[int, float, str, str]]:
    """Row, x, fill and words of every entry."""
    row, x = 0, float(LEFT)
    stages = [column.stage for column in columns]
    most = {name: max(stage.weights.get(name, 0) for stage in stages) for name in names}
    most[ACTIVATIONS] = max((stage.activations for stage in stages), default=0)
    entries = [(colour(n, names), f"{n} {size(b)}") for n, b in most.items()]
    if any(column.waiting for column in columns):
        entries.append(("stall", "waits for weights"))
    for fill, words in entries:
        wide = 30 + LETTER * len(words)
        if x + wide > LEFT + plot and x > LEFT:
            row, x = row + 1, float(LEFT)
        yield row, x, fill, words
        x += wide


def _drawn_legend(entries: Sequence[tuple[int, float, str, str]]) -> Iterator[str]:
    for row, x, fill, words in entries:
        y = 58 + LINE * row
        box = f'x="{_n(x)}" y="{y}" width="11" height="11"'
        if fill == "stall":
            yield f'<rect {box} fill="{COLOURS[ACTIVATIONS]}"/><rect class="stall" {box}/>'
        else:
            yield f'<rect {box} fill="{fill}"/>'
        yield _text(x + 16, y + 10, words, "")


def _summary(p: Prediction) -> str:
    waits = p.stall_s + p.switch_s
    return (
        f"{said(p)}: {duration(p.latency_s)}, of which {duration(waits)} wait for weights; "
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


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{_safe(words)}</text>'


def _safe(words: str) -> str:
    """Escaped, and without what XML cannot hold."""
    return escape(
        re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words)
    )


def _n(value: float) -> str:
    """A number without needless digits, the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
