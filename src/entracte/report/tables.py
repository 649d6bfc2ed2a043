"""The report's tables."""

from collections.abc import Iterator, Sequence

from entracte.trace.dump import Dump, Recording
from entracte.units import MIB, duration, size

from .stage_rows import StageRow, all_names, peak_of, stage_rows
from .svg import safe, share

COLUMNS = ("time", "share", "stall", "host", "peak")
OF_GROUPS = ("time", "share", "stall", "exchange", "host", "peak")


def stage_table(dumps: Sequence[tuple[str, Dump]]) -> str:
    """Stages down, dumps across, each with its time, share, waits and peak of memory."""
    alone = [dump for _, dump in dumps]
    columns = OF_GROUPS if any(map(_exchanging, alone)) else COLUMNS
    wide = f'colspan="{len(columns)}"'
    heads = "".join(f'<th {wide} scope="colgroup">{safe(label)}</th>' for label, _ in dumps)
    units = "".join(
        f'<th scope="col"{_first(at)}>{name}</th>' for _ in dumps for at, name in enumerate(columns)
    )
    body = []
    for name in all_names(alone):
        rows = (next((r for r in stage_rows(dump) if r.name == name), None) for dump in alone)
        cells = "".join(
            f'<td {wide} class="first none">–</td>' if row is None else _cells(dump, row, columns)
            for dump, row in zip(alone, rows, strict=True)
        )
        body.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>')
    whole = "".join(_whole(dump, columns) for dump in alone)
    closed = "".join(f'<td {wide} class="first">{_closure(dump)}</td>' for dump in alone)
    groups = "".join(f'<colgroup span="{len(columns)}"></colgroup>' for _ in dumps)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Stages"><table>'
        f"<caption>Times in milliseconds; peaks are of the device, activations included.</caption>"
        f"<col>{groups}"
        f'<thead><tr><th rowspan="2" scope="col">stage</th>{heads}</tr><tr>{units}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody>"
        f'<tfoot><tr><th scope="row">end to end</th>{whole}</tr>'
        f'<tr><th scope="row">closure</th>{closed}</tr></tfoot></table></div>'
    )


def transfer_table(recording: Recording) -> str:
    """Work on weights by lane; empty if there was none."""
    found: dict[tuple[str, str, str, str], list[tuple[float, int]]] = {}
    for each in recording.transfers:
        what = each.what if each.peer is None else f"{each.what} from rank {each.peer}"
        kind: tuple[str, str, str, str] = (each.lane, what, each.component, each.weights)
        found.setdefault(kind, []).append((each.duration_ms, each.nbytes))
    if not found:
        return ""
    rows = []
    for kind in sorted(found):
        busy, nbytes = (sum(values) for values in zip(*found[kind], strict=True))
        rate = f"{nbytes / busy / 1e6:,.3g}" if busy else "–"
        words = "".join(f"<td>{safe(word)}</td>" for word in kind[1:])
        rows.append(
            f'<tr><th scope="row">{safe(kind[0])}</th>{words}<td>{len(found[kind]):,}</td>'
            f"<td>{size(nbytes)}</td><td>{busy:,.1f}</td><td>{rate}</td></tr>"
        )
    heads = ("lane", "work", "component", "weights", "times", "bytes", "busy ms", "GB/s")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Work on weights">'
        '<table class="words-3">'
        "<caption>Hidden behind computing or not.</caption><thead><tr>"
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def checkpoint_table(dump: Dump) -> str:
    """Memory after each stage, as other engines report it; may be empty."""
    if not dump.memory_checkpoints:
        return ""
    rows = []
    for name, each in dump.memory_checkpoints.items():
        cells = "".join(
            f"<td>{'–' if mb is None else size(mb * MIB)}</td>"
            for mb in (each.allocated_mb, each.peak_allocated_mb)
        )
        rows.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Memory checkpoints"><table>'
        "<caption>Memory of the device.</caption><thead><tr>"
        '<th scope="col">checkpoint</th><th scope="col">allocated</th><th scope="col">peak</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def key_figures(dump: Dump) -> Iterator[tuple[str, str, str]]:
    """The key figures: name, figure, remark."""
    total = dump.total_duration_ms
    yield "end to end", duration(total / 1e3), _denoising(dump)
    if dump.recording is not None:
        stall = sum(row.stall_ms for row in stage_rows(dump))
        yield "waiting for weights", duration(stall / 1e3), f"{share(stall, total)} of end to end"
    peak = peak_of(dump)
    if peak is not None:
        yield "peak of the device", size(peak), _weights_peak(dump.recording)
    host = _host_peak(dump.recording)
    if host is not None:
        yield "memory on the host", size(host), "most at the end of a stage"
    if dump.closure is not None:
        yield "closure", f"{dump.closure.share:.2%}", "of the time is accounted for"


def _denoising(dump: Dump) -> str:
    longest = max(stage_rows(dump), key=lambda row: row.duration_ms, default=None)
    if longest is None:
        return ""
    return f"{share(longest.duration_ms, dump.total_duration_ms)} of it in {longest.name}"


def _weights_peak(recording: Recording | None) -> str:
    found = [
        stage.memory.weights_bytes
        for stage in (recording.stages if recording is not None else ())
        if stage.memory is not None and stage.memory.weights_bytes is not None
    ]
    return f"weights at most {size(max(found))}" if found else ""


def _host_peak(recording: Recording | None) -> int | None:
    found = [
        stage.memory.host_bytes
        for stage in (recording.stages if recording is not None else ())
        if stage.memory is not None and stage.memory.host_bytes is not None
    ]
    return max(found, default=None)


def _cells(dump: Dump, row: StageRow, columns: Sequence[str]) -> str:
    total, parts = dump.total_duration_ms, row.parts
    stalled = parts is not None and row.stall_ms > 0.01 * total
    found = {
        "time": f"{row.duration_ms:,.1f}",
        "share": share(row.duration_ms, total),
        "stall": "–" if parts is None else _time(row.stall_ms),
        "exchange": "–" if parts is None else _time(parts.exchange),
        "host": "–" if parts is None else _time(parts.host),
        "peak": "–" if row.peak_bytes is None else size(row.peak_bytes),
    }
    looks = {"time": ' class="first"', "stall": ' class="stall"' if stalled else ""}
    return "".join(f"<td{looks.get(name, '')}>{found[name]}</td>" for name in columns)


def _whole(dump: Dump, columns: Sequence[str]) -> str:
    parts = [row.parts for row in stage_rows(dump) if row.parts is not None]
    peak, recorded = peak_of(dump), dump.recording is not None
    found = {
        "time": f"{dump.total_duration_ms:,.1f}",
        "share": "100.0%",
        "stall": _time(sum(each.stall_ms for each in parts)) if recorded else "–",
        "exchange": _time(sum(each.exchange for each in parts)) if recorded else "–",
        "host": _time(sum(each.host for each in parts)) if recorded else "–",
        "peak": "–" if peak is None else size(peak),
    }
    looks = {"time": ' class="first"'}
    return "".join(f"<td{looks.get(name, '')}>{found[name]}</td>" for name in columns)


def _exchanging(dump: Dump) -> bool:
    return any(row.parts is not None and row.parts.exchange > 0 for row in stage_rows(dump))


def _closure(dump: Dump) -> str:
    closure = dump.closure
    if closure is None:
        return "not recorded"
    return f"parts {closure.parts_ms:,.1f} ms = {closure.share:.2%} of end to end"


def _time(ms: float) -> str:
    return f"{ms:,.1f}" if ms else "0"


def _first(column: int) -> str:
    return ' class="first"' if column == 0 else ""
