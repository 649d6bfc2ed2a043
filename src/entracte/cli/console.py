"""What a person sees in the terminal while and after a video is made."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from entracte.progress import Progress
from entracte.trace.trace import Trace

if TYPE_CHECKING:
    from entracte.planner.doctor import Check

COLOURS = {"good": "green", "warning": "yellow", "problem": "bold red"}


class ProgressBar:
    """A line on standard error: the stage, its step, how far denoising is, and the time left."""

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
        self._task = self._bar.add_task("open the model", total=1.0, step="", left="")

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
        step = f"{progress.step}/{progress.steps}" if progress.steps else ""
        left = "" if progress.seconds_left is None else f"{_duration(progress.seconds_left)} left"
        self._bar.update(
            self._task,
            description=progress.stage,
            completed=progress.fraction,
            step=step,
            left=left,
        )


def print_stage_table(trace: Trace) -> None:
    """Every stage with its time, its share of the whole, its steps, its peak memory, and how long
    it waited for weights.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for column in ("ms", "share", "steps", "ms a step", "peak memory", "stall ms"):
        table.add_column(column, justify="right")
    *parts, between_parts = trace.parts()
    traced = trace.options.level != "off"
    for span, part in zip(trace.spans, parts, strict=True):
        steps = len(span.steps)
        table.add_row(
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
    table.add_row("between stages", f"{between * 1e3:,.1f}", f"{between / trace.seconds:.1%}")
    table.add_row(
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
    """Every check with its verdict, what was found, and below it what that means."""
    table = Table(box=None, pad_edge=False)
    for column in ("verdict", "check", "found"):
        table.add_column(column)
    for check in checks:
        found = Text(check.found)
        if check.advice:
            found.append(f"\n{check.advice}", style="dim")
        table.add_row(Text(check.verdict, style=COLOURS[check.verdict]), Text(check.name), found)
    Console().print(table)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
