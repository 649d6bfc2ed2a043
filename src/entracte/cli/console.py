"""Terminal output during and after a generation."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from entracte.progress import Progress
from entracte.trace.trace import Trace

from .tables import add_row, plain_table
from .terminal import clean, say

if TYPE_CHECKING:
    from entracte.doctor.diagnosis import Check

OPENING = "open the model"

COLOURS = {"good": "green", "warning": "yellow", "problem": "bold red"}


def progress_view(hidden: bool = False) -> "ProgressBar | ProgressLines":
    """A progress bar on a terminal, else lines."""
    if Console(stderr=True).is_terminal or hidden:
        return ProgressBar(hidden)
    return ProgressLines()


class ProgressBar:
    """A line on standard error: stage, step, percentage and time left."""

    def __init__(self, hidden: bool = False) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description:<28}"),
            TextColumn("{task.fields[step]:>9}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            disable=hidden,
            transient=True,
        )
        self._task = self._bar.add_task(OPENING, total=1.0, step="", left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show a moment of the generation."""
        self._bar.update(
            self._task,
            description=progress.stage,
            completed=_fraction(progress),
            step=_step(progress),
            left=_left(progress),
        )


class ProgressLines:
    """Lines on standard error: every new stage, and every tenth of the whole."""

    def __init__(self) -> None:
        self._told = ("", 0)

    def __enter__(self) -> Self:
        say(OPENING, sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Print a moment of the generation, if it is worth a line."""
        fraction = _fraction(progress)
        tenth = int(fraction * 10 + 1e-6)
        if self._told == (progress.stage, tenth):
            return
        self._told = (progress.stage, tenth)
        words = [progress.stage, _step(progress), f"{fraction:.0%}", _left(progress)]
        say(", ".join(filter(None, words)), sys.stderr)
        sys.stderr.flush()


def _fraction(progress: Progress) -> float:
    """Words for the progress of a run, which is not done after the last step: decoding follows."""
    return min(progress.fraction, 0.99)


def _step(progress: Progress) -> str:
    return f"{progress.step}/{progress.steps}" if progress.steps else ""


def _left(progress: Progress) -> str:
    if progress.seconds_left is None or progress.fraction >= 1:
        return ""
    return f"{_duration(progress.seconds_left)} left"


def print_stage_table(trace: Trace) -> None:
    """Print every stage with its time, share, steps, peak memory, and time spent waiting for
    weights.
    """
    table = plain_table("stage")
    for column in ("ms", "share", "steps", "ms a step", "peak memory", "stall ms"):
        table.add_column(column, justify="right")
    *parts, between_parts = trace.parts()
    traced = trace.options.level != "off"
    for span, part in zip(trace.spans, parts, strict=True):
        steps = len(span.steps)
        add_row(
            table,
            span.name,
            f"{span.seconds * 1e3:,.1f}",
            f"{span.seconds / trace.seconds:.1%}",
            str(steps) if steps else "",
            f"{sum(span.steps) / steps * 1e3:,.1f}" if steps else "",
            "" if span.memory is None else f"{span.memory.peak_mb:,.0f} MiB",
            f"{part.stall * 1e3:,.1f}" if traced else "",
        )
    between = trace.seconds - sum(span.seconds for span in trace.spans)
    peak = max((span.memory.peak_mb for span in trace.spans if span.memory is not None), default=0)
    stall = between_parts.stall + sum(part.stall for part in parts)
    add_row(table, "between stages", f"{between * 1e3:,.1f}", f"{between / trace.seconds:.1%}")
    add_row(
        table,
        "end to end",
        f"{trace.seconds * 1e3:,.1f}",
        "100.0%",
        "",
        "",
        f"{peak:,.0f} MiB",
        f"{stall * 1e3:,.1f}" if traced else "",
    )
    Console().print(table)


def print_checks(checks: "Sequence[Check]") -> None:
    """Print every check with its verdict and finding, and its meaning below."""
    table = plain_table("verdict", "check", "found")
    for check in checks:
        found = Text(clean(check.found))
        if check.advice:
            found.append(f"\n{clean(check.advice)}", style="dim")
        add_row(table, Text(check.verdict, style=COLOURS[check.verdict]), check.name, found)
    Console().print(table)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
