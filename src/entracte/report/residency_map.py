"""The map of where every block's weights were: blocks down, time across.

Below the whole run, the switch between the stages is shown again, larger: there the change rolls
through the blocks as they compute.
"""

from collections import Counter
from collections.abc import Iterator

from entracte.stages import DENOISE, REFINE
from entracte.trace.dump import DumpedResidency, Recording
from entracte.units import duration

from .colours import STATES, WAITS
from .svg import document, legend, line, number, rect, text, wait_look, wait_patterns
from .time_axis import (
    BAND,
    LEFT,
    PLOT,
    WIDTH,
    TimeScale,
    end_of,
    stage_bands,
    step_marks,
    time_axis,
    waits_strip,
)

OVERVIEW, ZOOM = 250, 380  # heights of the two maps' plots
STRIP, GAP = 9, 14  # height of the row of waits, and what is around it
LEAST = 0.05  # narrower is not seen
STEPS_BEFORE = 2  # of the first loop, that belong to the switch
WIDE = 0.6  # a zoom on more of the run than this shows nothing new


def residency_map(
    recording: Recording, total_ms: float, ident: str, title: str, alone: bool = False
) -> str | None:
    """The map as SVG; None where the recording has none. ident: as `svg.document` has it."""
    held = recording.residency
    if held is None or not held.blocks:
        return None
    whole = TimeScale(0.0, end_of([recording], total_ms))
    lens = zoom_window(recording, whole.end_ms)
    top = 44.0 if alone else 4.0
    entries = _legend(recording, held, ident, lens is not None)
    key, taken = legend(entries, LEFT, top, PLOT)
    y = top + taken + 6
    body = [f"<defs>{wait_patterns(ident)}</defs>"]
    if alone:
        body.append(text(LEFT, 28, title, "title"))
    body += [*key, *_panel(recording, held, whole, y, OVERVIEW, ident)]
    bottom = y + BAND + STRIP + GAP + OVERVIEW
    height = bottom + 28
    if lens is not None:
        under = bottom + 54
        body += _beam(whole, lens, y + BAND + STRIP + GAP, bottom, under)
        body += _panel(recording, held, lens, under, ZOOM, ident)
        body += _runs(recording, held, lens, under + BAND + STRIP + GAP)
        height = under + BAND + STRIP + GAP + ZOOM + 28
    return document(body, (WIDTH, height), ident, title, describe(recording, held, lens), alone)


def zoom_window(recording: Recording, end_ms: float) -> TimeScale | None:
    """The shortest time around the switch in which all blocks change.

    None if nothing changes, or if the change takes so long that a zoom shows nothing new.
    """
    held = recording.residency
    assert held is not None
    changes = sorted(
        (ms, block)
        for block, points in enumerate(held.blocks)
        for ms, _ in points[1:]
        if 0 < ms < end_ms
    )
    start, end = _around_the_switch(recording, end_ms)
    near = [change for change in changes if start <= change[0] <= end] or changes
    if not near:
        return None
    first, last = _one_roll(near)
    room = max(0.25 * (last - first), 0.004 * end_ms)
    scale = TimeScale(max(0.0, first - room), min(end_ms, last + room))
    return scale if scale.end_ms - scale.start_ms < WIDE * end_ms else None


def _around_the_switch(recording: Recording, end_ms: float) -> tuple[float, float]:
    """From the last steps of `denoise` to the end of `refine`; all, where these are not."""
    stages = {stage.name: (start, stage) for start, stage in recording.timed_stages}
    if not {DENOISE.name, REFINE.name} <= stages.keys():
        return 0.0, end_ms
    first, before = stages[DENOISE.name]
    if before.steps:
        first = before.steps[-STEPS_BEFORE:][0].start_ms
    start, after = stages[REFINE.name]
    return first, start + after.duration_ms


def _one_roll(changes: list[tuple[float, int]]) -> tuple[float, float]:
    """The shortest stretch of sorted changes in which each of their blocks occurs."""
    missing = len({block for _, block in changes})
    inside: Counter[int] = Counter()
    best = changes[0][0], changes[-1][0]
    left = 0
    for right_ms, block in changes:
        inside[block] += 1
        missing -= inside[block] == 1
        while not missing:
            left_ms, leaving = changes[left]
            if right_ms - left_ms < best[1] - best[0]:
                best = left_ms, right_ms
            inside[leaving] -= 1
            missing += inside[leaving] == 0
            left += 1
    return best


def _panel(
    recording: Recording,
    held: DumpedResidency,
    scale: TimeScale,
    y: float,
    height: float,
    ident: str,
) -> Iterator[str]:
    """Stages, waits, and the map below them, from `y` on."""
    strip = y + BAND + 4
    top = y + BAND + STRIP + GAP
    bottom = top + height
    row = height / len(held.blocks)
    yield rect(LEFT, top, PLOT, height, 'class="plot"')
    yield from waits_strip(recording, scale, strip, STRIP, ident)
    yield from _states(held, scale, top, row)
    yield from stage_bands(recording, scale, y, bottom)
    yield from step_marks(recording, scale, y + BAND - 5)
    yield from time_axis(scale, bottom)
    every = max(1, round(len(held.blocks) / 6))
    for block in range(0, len(held.blocks), every):
        words = f"block {block}" if block == 0 else str(block)
        yield text(LEFT - 8, top + row * (block + 0.5) + 4, words, "quiet", "end")


def _states(held: DumpedResidency, scale: TimeScale, top: float, row: float) -> Iterator[str]:
    """One path for each state: a box for every time that a block was in it."""
    paths: dict[int, list[str]] = {}
    gap = min(1.0, 0.12 * row)
    for block, changes in enumerate(held.blocks):
        y = number(top + row * block + gap / 2)
        tall = number(row - gap)
        ends = [*(ms for ms, _ in changes[1:]), scale.end_ms]
        for (start, state), end in zip(changes, ends, strict=False):
            left, right = scale.x(start), scale.x(end)
            if right - left >= LEAST and scale.shows(start, end):
                box = f"M{number(left)} {y}h{number(right - left)}v{tall}H{number(left)}z"
                paths.setdefault(state, []).append(box)
    for state in sorted(paths):
        name = held.states[state]
        kind, words = STATES[name]
        boxes = "".join(paths[state])
        yield f'<path class="{kind}" data-state="{name}" d="{boxes}"><title>{words}</title></path>'


def _runs(
    recording: Recording, held: DumpedResidency, scale: TimeScale, top: float
) -> Iterator[str]:
    """Where blocks computed, as marks in their rows."""
    row = ZOOM / len(held.blocks)
    tall = max(1.0, 0.3 * row)
    boxes = []
    for run in recording.blocks:
        if run.component != held.component or run.unit >= len(held.blocks):
            continue
        if scale.shows(run.start_ms, run.end_ms):
            left, right = scale.x(run.start_ms), scale.x(run.end_ms)
            y = top + row * run.unit + (row - tall) / 2
            wide = number(max(right - left, 0.4))
            boxes.append(f"M{number(left)} {number(y)}h{wide}v{number(tall)}h-{wide}z")
    if boxes:
        yield f'<path class="runs" d="{"".join(boxes)}"><title>computes</title></path>'


def _beam(
    whole: TimeScale, lens: TimeScale, top: float, bottom: float, under: float
) -> Iterator[str]:
    """A frame around the zoomed part, with lines to it."""
    left, right = whole.x(lens.start_ms), whole.x(lens.end_ms)
    start = bottom + 24
    yield rect(left, top - 2, max(right - left, 2), bottom - top + 4, 'class="lens"')
    yield (
        f'<path class="beam" d="M{number(left)} {number(bottom + 2)}H{number(right)}'
        f"V{number(start)}L{LEFT + PLOT} {number(under - 2)}H{LEFT}"
        f'L{number(left)} {number(start)}z"/>'
    )
    for near, far in ((left, LEFT), (right, LEFT + PLOT)):
        yield line("lens", near, bottom + 2, near, start)
        yield line("lens", near, start, far, under - 2)


def _legend(
    recording: Recording, held: DumpedResidency, ident: str, zoomed: bool
) -> list[tuple[str, str]]:
    seen = {state for changes in held.blocks for _, state in changes}
    entries = [
        (f'class="{STATES[name][0]}"', STATES[name][1])
        for number_, name in enumerate(held.states)
        if number_ in seen
    ]
    if zoomed and recording.blocks:
        entries.append(('class="runs"', "computes (below)"))
    causes = {wait.cause for wait in recording.waits}
    entries += [(wait_look(ident, c), f"waits: {c}") for c in WAITS if c in causes]
    return entries


def describe(recording: Recording, held: DumpedResidency, lens: TimeScale | None) -> str:
    """The map in words."""
    names = [name for name in held.states if any(_ever(held, name))]
    words = (
        f"Where the weights of {len(held.blocks)} blocks of {held.component} were over time. "
        f"States: {', '.join(names)}."
    )
    if lens is None:
        return words
    within = [
        stage.name
        for start, stage in recording.timed_stages
        if lens.shows(start, start + stage.duration_ms)
    ]
    return (
        f"{words} Shown again, larger: {duration((lens.end_ms - lens.start_ms) / 1e3)} from "
        f"{duration(lens.start_ms / 1e3)} on, in {', '.join(within)}, in which the change goes "
        "through the blocks."
    )


def _ever(held: DumpedResidency, name: str) -> Iterator[bool]:
    at = held.states.index(name)
    for changes in held.blocks:
        yield any(state == at for _, state in changes)
