"""The tables of a benchmark: our modes beside published ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from entracte.stages import stages_of

from .measure import EXACT, MeasuredMode
from .published import COLUMNS, ROWS

Table = list[list[str]]  # the first row has the heads


@dataclass(frozen=True, slots=True)
class Theirs:
    """diffusers' runs: medians of stages and end to end in seconds, its peak memory in bytes.

    distances: of the latents from ours, relative.
    """

    stages: dict[str, float]
    end_to_end: float
    peak_bytes: int
    distances: dict[str, float]


def stage_table(found: Sequence[MeasuredMode], theirs: Theirs | None, published: bool) -> Table:
    """Milliseconds stage by stage, end to end, and peak memory: medians, ours and others'."""
    ran = [each for each in found if each.runs]
    columns = list(COLUMNS.values()) if published else []
    table = [
        ["stage, ms", *(each.mode for each in ran)]
        + (["diffusers"] if theirs else [])
        + [f"{each.name} (published, {each.card})" for each in columns]
    ]
    named = {stage.name for stage in stages_of() if stage.row}
    for number, row in enumerate(ROWS):
        ours = [stage.name for stage in stages_of() if stage.row == row]
        line = [row, *(_ms(sum(map(each.stage, ours))) for each in ran)]
        if theirs:
            line.append(_ms(sum(theirs.stages.get(name, 0.0) for name in ours)))
        table.append(line + [_ms(each.stages[number] / 1e3) for each in columns])
    rest = [
        each.median(lambda run: run.end_to_end - sum(run.stages.get(n, 0.0) for n in named))
        for each in ran
    ]
    line = ["everything else", *map(_ms, rest)]
    if theirs:
        known = sum(seconds for name, seconds in theirs.stages.items() if name in named)
        line.append(_ms(theirs.end_to_end - known))
    table.append(line + [_ms((each.end_to_end - sum(each.stages)) / 1e3) for each in columns])
    line = ["end to end", *(_ms(each.median(lambda run: run.end_to_end)) for each in ran)]
    if theirs:
        line.append(_ms(theirs.end_to_end))
    table.append(line + [_ms(each.end_to_end / 1e3) for each in columns])
    on_device = any(run.device_bytes for each in ran for run in each.runs)
    line = ["peak GPU memory, GB" if on_device else "peak host memory, GB"]
    line += [f"{_peak(each, on_device) / 1e9:.2f}" for each in ran]
    if theirs:
        line.append(f"{theirs.peak_bytes / 1e9:.2f}")
    return [*table, line + [f"{each.peak_memory:.2f}" if on_device else "" for each in columns]]


def waiting_table(found: Sequence[MeasuredMode], theirs: Theirs | None) -> Table:
    """What each mode's time consists of, how far it was predicted, and how runs differed."""
    heads = ["mode", "end to end s", "spread", "compute s", "copy ms", "merge ms", "read ms"]
    heads += [
        "launch ms",
        "host ms",
        "stall",
        "closes to",
        "predicted s",
        "predicted GB",
        "latents",
    ]
    heads += ["diffusers takes"] if theirs else []
    table = [heads]
    exact = {each.runs[0].digest for each in found if each.runs and each.mode in EXACT}
    for each in found:
        if not each.runs:
            table.append([each.mode, f"not run: {each.skipped}", *[""] * (len(heads) - 2)])
            continue
        end_to_end = each.median(lambda run: run.end_to_end)
        line = [each.mode, f"{end_to_end:.3f}", f"{each.spread(lambda run: run.end_to_end):.1%}"]
        line.append(f"{each.median(lambda run: run.parts.compute):.3f}")
        line += [
            _ms(each.median(lambda run: run.parts.copy)),
            _ms(each.median(lambda run: run.parts.merge)),
            _ms(each.median(lambda run: run.parts.read)),
            _ms(each.median(lambda run: run.parts.launch)),
            _ms(each.median(lambda run: run.parts.host)),
        ]
        line.append(f"{each.median(lambda run: run.parts.stall / run.end_to_end):.2%}")
        line.append(f"{each.median(lambda run: run.closed):.2%}")
        p = each.predicted
        line += (
            ["", ""] if p is None else [f"{p.latency_s:.3f}", f"{p.peak_device_bytes / 1e9:.2f}"]
        )
        line.append(_sameness(each, exact))
        if theirs:
            line.append(f"{theirs.end_to_end / end_to_end:.2f} times as long")
        table.append(line)
    return [list(row) for row in zip(*table, strict=True)]  # a column a mode, as above


def _sameness(each: MeasuredMode, exact: set[str]) -> str:
    if len({run.digest for run in each.runs}) > 1:
        return "DIFFER from run to run"
    if each.mode not in EXACT:
        return "same every run"
    return "same in every mode" if len(exact) == 1 else f"DIFFER: {each.runs[0].digest}"


def markdown(table: Table) -> str:
    """A table in Markdown."""
    heads, *lines = table
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines]
    )


def _peak(each: MeasuredMode, on_device: bool) -> float:
    return each.median(lambda run: run.device_bytes if on_device else run.host_bytes)


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:,.2f}" if milliseconds < 10 else f"{milliseconds:,.0f}"
