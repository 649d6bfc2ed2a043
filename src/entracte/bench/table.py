"""The tables of a benchmark: our modes beside diffusers and published figures."""

from collections.abc import Sequence

from entracte.stages import stages_of

from .diffusers_result import MeasuredPeer
from .measure import EXACT, MeasuredMode, MeasuredTask
from .published import COLUMNS, ROWS

Table = list[list[str]]  # the first row has the heads


def stage_table(found: MeasuredTask, published: bool) -> Table:
    """Milliseconds stage by stage, end to end, and peak memory: medians, ours and others'."""
    ran, peers = _ran(found), _compared(found)
    columns = list(COLUMNS.values()) if published else []
    table = [
        ["stage, ms", *(each.mode for each in ran), *(peer.name for peer in peers)]
        + [f"{each.name} (published, {each.card})" for each in columns]
    ]
    named = {stage.name for stage in stages_of() if stage.row}
    for number, row in enumerate(ROWS):
        ours = [stage.name for stage in stages_of() if stage.row == row]
        table.append(
            [row, *(_ms(sum(map(each.stage, ours))) for each in ran)]
            + [_ms(sum(peer.stages.get(name, 0.0) for name in ours)) for peer in peers]
            + [_ms(each.stages[number] / 1e3) for each in columns]
        )
    rest = [
        each.median(lambda run: run.end_to_end - sum(run.stages.get(n, 0.0) for n in named))
        for each in ran
    ]
    rest += [
        peer.end_to_end - sum(s for name, s in peer.stages.items() if name in named)
        for peer in peers
    ]
    rest += [(each.end_to_end - sum(each.stages)) / 1e3 for each in columns]
    table.append(["everything else", *map(_ms, rest)])
    ends = [each.median(lambda run: run.end_to_end) for each in ran]
    ends += [peer.end_to_end for peer in peers]
    table.append(["end to end", *map(_ms, [*ends, *(each.end_to_end / 1e3 for each in columns)])])
    on_device = any(run.device_bytes for each in ran for run in each.runs)
    return [
        *table,
        ["peak GPU memory, GB" if on_device else "peak host memory, GB"]
        + [f"{_peak(each, on_device) / 1e9:.2f}" for each in ran]
        + [f"{peer.peak_bytes / 1e9:.2f}" for peer in peers]
        + [f"{each.peak_memory:.2f}" if on_device else "" for each in columns],
    ]


def step_table(found: MeasuredTask) -> Table:
    """Milliseconds of a step of every loop beside its floor, and the floor's share of them."""
    ran, peers = _ran(found), _compared(found)
    table = [["a step, ms", "floor", *(each.mode for each in ran), *(p.name for p in peers)]]
    for floor in found.floors:
        steps = [each.step(floor.stage) for each in ran]
        steps += [peer.steps.get(floor.stage, 0.0) for peer in peers]
        table.append(
            [f"{floor.stage}: {floor}", _ms(floor.seconds)]
            + [f"{_ms(step)} ({floor.seconds / step:.0%})" if step else "" for step in steps]
        )
    return table


def task_table(found: Sequence[MeasuredTask]) -> Table:
    """End to end in seconds, tasks beside each other; a mode that did not run has a blank."""
    first, *others = found
    table = [["end to end, s", *(each.task for each in found)]]
    table[0] += [f"{each.task} / {first.task}" for each in others]
    ends = [_ends(each) for each in found]
    for name in ends[0]:
        seconds = [end.get(name) for end in ends]
        ratios = [s / seconds[0] if s and seconds[0] else None for s in seconds[1:]]
        table.append(
            [name]
            + ["" if s is None else f"{s:.3f}" for s in seconds]
            + ["" if ratio is None else f"{ratio:.3f}" for ratio in ratios]
        )
    return table


def _ends(found: MeasuredTask) -> dict[str, float]:
    ends = {each.mode: each.median(lambda run: run.end_to_end) for each in _ran(found)}
    return ends | {peer.name: peer.end_to_end for peer in _compared(found)}


def waiting_table(found: MeasuredTask) -> Table:
    """What each mode's time consists of, how far it was predicted, and how runs differed."""
    peers = _compared(found)
    heads = ["mode", "end to end s", "spread", "compute s", "copy ms", "merge ms", "read ms"]
    heads += ["launch ms", "host ms", "stall", "closes to", "predicted s", "predicted GB"]
    heads += ["latents"]
    heads += [f"{peer.name} takes" for peer in peers]
    table = [heads]
    exact = {each.runs[0].digest for each in found.modes if each.runs and each.mode in EXACT}
    for each in found.modes:
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
        line += [f"{peer.end_to_end / end_to_end:.2f} times as long" for peer in peers]
        table.append(line)
    return [list(row) for row in zip(*table, strict=True)]  # a column a mode, as above


def _ran(found: MeasuredTask) -> list[MeasuredMode]:
    return [each for each in found.modes if each.runs]


def _compared(found: MeasuredTask) -> list[MeasuredPeer]:
    return [peer for peer in found.peers if peer.failed is None]


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
