"""A time axis with the stages above it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from entracte.trace.dump import Recording

from .svg import LETTER, line, number, rect, step_size, text, wait_look

LEFT, PLOT, RIGHT = 58, 1010, 18
WIDTH = LEFT + PLOT + RIGHT
BAND = 26


@dataclass(frozen=True, slots=True)
class TimeScale:
    """What the width of the plot stands for, in milliseconds."""

    start_ms: float
    end_ms: float

    def x(self, ms: float) -> float:
        """Where a time is; times outside are put at the edges."""
        inside = min(max(ms, self.start_ms), self.end_ms)
        return LEFT + PLOT * (inside - self.start_ms) / max(self.end_ms - self.start_ms, 1e-9)

    def shows(self, start_ms: float, end_ms: float) -> bool:
        return start_ms < self.end_ms and end_ms > self.start_ms


def time_axis(scale: TimeScale, y: float) -> Iterator[str]:
    """Ticks with their times, below `y`."""
    span = scale.end_ms - scale.start_ms
    in_seconds = scale.end_ms >= 2000
    step = step_size(span, 10)
    unit = 1e3 if in_seconds else 1.0
    digits = max(0, -_power(step / unit))
    yield line("axis", LEFT, y, LEFT + PLOT, y)
    first = int(-(-scale.start_ms // step))
    for tick in range(first, int(scale.end_ms // step) + 1):
        x = scale.x(tick * step)
        yield line("axis", x, y, x, y + 4)
        last = tick == int(scale.end_ms // step)
        words = f"{tick * step / unit:.{digits}f}" + (
            f" {'s' if in_seconds else 'ms'}" if last else ""
        )
        anchor = "end" if x > LEFT + PLOT - 20 else "middle"
        yield text(x, y + 18, words, "quiet", anchor)


def _power(value: float) -> int:
    """Of ten: where the first digit of a round number is."""
    return int(f"{value:e}".split("e")[1])


def stage_bands(recording: Recording, scale: TimeScale, y: float, bottom: float) -> Iterator[str]:
    """The stages as bands with their names, and lines from their ends down to `bottom`."""
    shown = 0
    for start, stage in recording.timed_stages:
        end = start + stage.duration_ms
        if not scale.shows(start, end):
            continue
        left, right = scale.x(start), scale.x(end)
        shown += right - left > 2  # so that neighbours that are seen differ
        title = f"{stage.name}: {stage.duration_ms:,.1f} ms"
        look = f'class="band-{shown % 2}"'
        yield rect(left, y, max(right - left, 0.3), BAND, look, title)
        words = fitting(stage.name, right - left - 6)
        if words:
            yield text((left + right) / 2, y + 17, words, "strong", "middle")
        if right - left > 8:
            for x in {left, right} - {float(LEFT), float(LEFT + PLOT)}:
                yield line("band-edge", x, y + BAND, x, bottom)


def step_marks(recording: Recording, scale: TimeScale, y: float) -> Iterator[str]:
    """A small mark at the beginning of every step of a stage."""
    path = "".join(
        f"M{number(scale.x(step.start_ms))} {number(y)}v5"
        for stage in recording.stages
        for step in stage.steps
        if scale.shows(step.start_ms, step.end_ms)
    )
    if path:
        yield f'<path class="axis" d="{path}"/>'


def waits_strip(
    recording: Recording, scale: TimeScale, y: float, height: float, ident: str
) -> Iterator[str]:
    """A row in which every wait has the colour of its cause."""
    paths: dict[str, list[str]] = {}
    for wait in recording.waits:
        left, right = scale.x(wait.start_ms), scale.x(wait.end_ms)
        if scale.shows(wait.start_ms, wait.end_ms) and right - left >= 0.05:
            box = f"M{number(left)} {number(y)}h{number(right - left)}v{number(height)}"
            paths.setdefault(wait.cause, []).append(f"{box}H{number(left)}z")
    yield text(LEFT - 8, y + height - 1, "waits", "quiet", "end")
    for cause, boxes in paths.items():
        yield f'<path {wait_look(ident, cause)} data-wait="{cause}" d="{"".join(boxes)}"/>'


def fitting(name: str, width: float) -> str:
    """The name, if need be without its parentheses; empty if neither fits."""
    short = name.split(" (")[0]
    for words in (name, short):
        if LETTER * 1.08 * len(words) <= width:
            return words
    return ""


def end_of(recordings: Sequence[Recording], total_ms: float) -> float:
    """Where a time axis ends."""
    ends = [s + stage.duration_ms for r in recordings for s, stage in r.timed_stages]
    return max([total_ms, *ends, 1e-3])
