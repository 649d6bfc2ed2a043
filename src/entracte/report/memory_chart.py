"""The memory that every component's weights take, over time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from entracte.trace.dump import MemoryKind, Points, Recording
from entracte.units import size

from .colours import component_colours
from .svg import LINE_LOOK, document, legend, line, number, safe, step_size, text
from .time_axis import BAND, LEFT, PLOT, WIDTH, TimeScale, end_of, stage_bands, time_axis

HEIGHT = 210
# More points than these cannot be distinguished on the plot.
COLUMNS = 2 * PLOT

Layer = tuple[str, MemoryKind]
HeldBytes = tuple[float, tuple[int, ...]]

WHERE: dict[str, tuple[MemoryKind, ...]] = {"device": ("device",), "host": ("pinned", "pageable")}


def memory_chart(
    recording: Recording, total_ms: float, where: Literal["device", "host"], ident: str
) -> str | None:
    """Stacked areas of the device's or the host's memory; None if there was none."""
    layers = _layers(recording, WHERE[where])
    if not layers:
        return None
    scale = TimeScale(0.0, end_of([recording], total_ms))
    moments = staircase(recording, layers, scale)
    peaks = list(_peaks(recording)) if where == "device" else []
    most = max([sum(held) for _, held in moments] + [peak for _, _, peak in peaks])
    top_bytes = 1.05 * max(most, 1)
    colours = component_colours(list(recording.memory))
    entries = [
        (_look(layer, colours, ident), _named(layer, moments, index, where))
        for index, layer in enumerate(layers)
    ]
    if peaks:
        entries.append((LINE_LOOK, "a stage's peak of all there is, activations included"))
    key, taken = legend(entries, LEFT, 4, PLOT)
    y = 4 + taken + 6
    bottom = y + BAND + 16 + HEIGHT

    def at(nbytes: float) -> float:
        return bottom - HEIGHT * nbytes / top_bytes

    body = [f"<defs>{_patterns(layers, colours, ident)}</defs>", *key]
    body += _byte_axis(top_bytes, bottom)
    for index, layer in enumerate(layers):
        points = [
            (scale.x(ms), at(sum(held[:index])), at(sum(held[: index + 1]))) for ms, held in moments
        ]
        points.append((scale.x(scale.end_ms), points[-1][1], points[-1][2]))
        words = _named(layer, moments, index, where)
        body.append(_area(points, _look(layer, colours, ident), words))
    body += stage_bands(recording, scale, y, bottom)
    for start, end, peak in peaks:
        body.append(line("peak", scale.x(start), at(peak), scale.x(end), at(peak)))
    body += time_axis(scale, bottom)
    title = f"Memory on the {where} over time"
    held_most = max(sum(held) for _, held in moments)
    described = f"Weights take at most {size(held_most)}. " + " ".join(
        f"{words}." for look, words in entries if look != LINE_LOOK
    )
    return document(body, (WIDTH, bottom + 28), ident, title, described)


def staircase(recording: Recording, layers: Sequence[Layer], scale: TimeScale) -> list[HeldBytes]:
    """The bytes of every layer over time, with no more points than can be drawn.

    Of the points in one column of the plot, the highest and the last are kept, so that no peak is
    lost and none is invented.
    """
    changes: dict[float, dict[int, int]] = {}
    for index, (name, place) in enumerate(layers):
        for ms, nbytes in recording.memory[name][place]:
            changes.setdefault(ms, {})[index] = nbytes
    now = [0] * len(layers)
    moments: list[HeldBytes] = []
    for ms in sorted(changes):
        for index, nbytes in changes[ms].items():
            now[index] = nbytes
        moments.append((max(ms, scale.start_ms), tuple(now)))
    if not moments or moments[0][0] > scale.start_ms:
        moments.insert(0, (scale.start_ms, (0,) * len(layers)))
    if len(moments) <= COLUMNS:
        return moments
    columns: dict[int, list[HeldBytes]] = {}
    for moment in moments:
        column = int((scale.x(moment[0]) - LEFT) * COLUMNS / (2 * PLOT))
        columns.setdefault(column, []).append(moment)
    kept: list[HeldBytes] = []
    for within in columns.values():
        highest = max(within, key=lambda moment: sum(moment[1]))
        kept += [highest] if highest is within[-1] else [highest, within[-1]]
    return kept


def _layers(recording: Recording, places: Sequence[MemoryKind]) -> list[Layer]:
    """From the bottom to the top: first what holds most for longest."""
    found = {
        (name, place): held[place]
        for name, held in recording.memory.items()
        for place in places
        if place in held and any(nbytes for _, nbytes in held[place])
    }
    return sorted(found, key=lambda layer: (-_area_of(found[layer]), layer))


def _area_of(points: Points) -> float:
    """Bytes times milliseconds, the last step left out but for its height."""
    return sum(b * (later - ms) for (ms, b), (later, _) in pairwise(points)) + points[-1][1]


def _peaks(recording: Recording) -> Iterator[tuple[float, float, int]]:
    for start, stage in recording.timed_stages:
        if stage.memory is not None and stage.memory.device_bytes is not None:
            yield start, start + stage.duration_ms, stage.memory.device_bytes


def _named(layer: Layer, moments: Sequence[HeldBytes], index: int, where: str) -> str:
    name, place = layer
    most = size(max(held[index] for _, held in moments))
    return f"{name}: up to {most}" + ("" if where == "device" else f" {place}")


def _look(layer: Layer, colours: dict[str, str], ident: str) -> str:
    name, place = layer
    if place != "pageable":
        return f'fill="{colours[name]}"'
    return f'fill="url(#{ident}-{list(colours).index(name)})"'


def _patterns(layers: Sequence[Layer], colours: dict[str, str], ident: str) -> str:
    """Of pageable memory: striped, in the colour of its component."""
    return "".join(
        f'<pattern id="{ident}-{list(colours).index(name)}" width="6" height="6" '
        f'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" '
        f'fill="{colours[name]}"/><rect width="2" height="6" fill="#fff" fill-opacity="0.55"/>'
        "</pattern>"
        for name, place in layers
        if place == "pageable"
    )


def _area(points: Sequence[tuple[float, float, float]], look: str, title: str) -> str:
    """points: x, and there the bottom and the top of the area until the next point."""
    over = [f"M{number(points[0][0])} {number(points[0][1])}"]
    over += [f"H{number(x)}V{number(top)}" for x, _, top in points]
    under = []
    for (x, _, _), (_, below, _) in zip(
        reversed(points), [*reversed(points[:-1]), points[0]], strict=True
    ):
        under.append(f"H{number(x)}V{number(below)}")
    return f'<path {look} d="{"".join(over + under)}z"><title>{safe(title)}</title></path>'


def _byte_axis(top_bytes: float, bottom: float) -> Iterator[str]:
    unit, scale = ("GB", 1e9) if top_bytes >= 1e9 else ("MB", 1e6)
    step = step_size(top_bytes / scale, 6)
    yield text(LEFT - 8, bottom - HEIGHT - 6, unit, "quiet", "end")
    for tick in range(int(top_bytes / scale / step) + 1):
        y = bottom - HEIGHT * tick * step * scale / top_bytes
        yield line("grid" if tick else "axis", LEFT, y, LEFT + PLOT, y)
        yield text(LEFT - 8, y + 4, f"{tick * step:g}", "quiet", "end")
