"""The report's tables."""

from collections.abc import Iterator, Sequence

from entracte.trace.dump import Dump, Recording
from entracte.units import MIB, duration, size

from .stage_rows import StageRow, all_names, peak_of, stage_rows
from .svg import safe, share

COLUMNS = ("time", "share", "stall", "host", "peak")


def stage_table(dumps: Sequence[tuple[str, Dump]]) -> str:
    """Stages down, dumps across, each with its time, share, waits and peak of memory."""
    alone = [dump for _, dump in dumps]
    heads = "".join(f'<th colspan="5" scope="colgroup">{safe(label)}</th>' for label, _ in dumps)
    units = "".join(
        f'<th scope="col"{_first(at)}>{name}</th>' for _ in dumps for at, name in enumerate(COLUMNS)
    )
    body = []
    for name in all_names(alone):
        cells = "".join(
            _cells(dump, next((r for r in stage_rows(dump) if r.name == name), None))
            for dump in alone
        )
        body.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>')
    whole = "".join(_whole(dump) for dump in alone)
    closed = "".join(f'<td colspan="5" class="first">{_closure(dump)}</td>' for dump in alone)
    groups = "".join(f'<colgroup span="{len(COLUMNS)}"></colgroup>' for _ in dumps)
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
        kind: tuple[str, str, str, str] = (each.lane, each.what, each.component, each.weights)
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


def _cells(dump: Dump, row: StageRow | None) -> str:
    if row is None:
        return '<td colspan="5" class="first none">–</td>'
    stall, host = "–", "–"
    marked = ""
    if row.parts is not None:
        stall, host = _time(row.stall_ms), _time(row.parts.host)
        marked = ' class="stall"' if row.stall_ms > 0.01 * dump.total_duration_ms else ""
    peak = "–" if row.peak_bytes is None else size(row.peak_bytes)
    return (
        f'<td class="first">{row.duration_ms:,.1f}</td>'
        f"<td>{share(row.duration_ms, dump.total_duration_ms)}</td>"
        f"<td{marked}>{stall}</td><td>{host}</td><td>{peak}</td>"
    )


def _whole(dump: Dump) -> str:
    rows = stage_rows(dump)
    stall, host = "–", "–"
    if dump.recording is not None:
        stall = _time(sum(row.stall_ms for row in rows))
        host = _time(sum(row.parts.host for row in rows if row.parts is not None))
    peak = peak_of(dump)
    return (
        f'<td class="first">{dump.total_duration_ms:,.1f}</td><td>100.0%</td><td>{stall}</td>'
        f"<td>{host}</td><td>{'–' if peak is None else size(peak)}</td>"
    )


def _closure(dump: Dump) -> str:
    closure = dump.closure
    if closure is None:
        return "not recorded"
    return f"parts {closure.parts_ms:,.1f} ms = {closure.share:.2%} of end to end"


def _time(ms: float) -> str:
    return f"{ms:,.1f}" if ms else "0"


def _first(column: int) -> str:
    return ' class="first"' if column == 0 else ""
