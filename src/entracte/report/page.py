"""The report: one self-contained HTML page."""

from collections.abc import Iterator, Sequence

from entracte.trace.dump import Dump

from .colours import chart_style, scheme_css
from .memory_chart import memory_chart
from .page_style import PAGE_STYLE
from .residency_map import residency_map
from .stage_bars import stage_bars
from .svg import safe
from .tables import checkpoint_table, key_figures, stage_table, transfer_table

NO_RECORDING = (
    "This dump has no recording: another engine or an older version made it. Only its stages and "
    "its peaks of memory can be shown; memory over time and the residency map cannot."
)
NO_MAP = "This run's recording has no component in blocks, so there is no residency map."
NO_MEMORY = "This run's recording has no weights on the {where}."

MAP_TEXT = (
    "Each row is a block of the transformer, time goes from left to right, and the colour says "
    "where the block's weights are. Where the two stages use different weights, the change rolls "
    "through the blocks."
)

# Whatever a dump contains, the page runs no script and loads nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def report_page(dumps: Sequence[tuple[str, Dump]]) -> str:
    """The report of labelled dumps; at least one. It has no script and loads nothing."""
    labels = [label for label, _ in dumps]
    title = "Performance report" if len(labels) > 1 else f"Performance report: {labels[0]}"
    links = "".join(
        f'<li><a href="#run-{at}">{safe(label)}</a></li>' for at, label in enumerate(labels)
    )
    runs = "\n".join(
        "\n".join(_run(label, dump, f"run-{at}")) for at, (label, dump) in enumerate(dumps)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{safe(title)}</title>
<style>{scheme_css()}{PAGE_STYLE}{chart_style()}</style>
</head>
<body>
<header>
<p class="brand">Entracte</p>
<h1>Performance report</h1>
<p class="quiet">{_introduction(labels)}</p>
<nav aria-label="Contents"><ul><li><a href="#time">Where the time went</a></li>{links}</ul></nav>
</header>
<main>
<section id="time" aria-labelledby="time-head">
<h2 id="time-head">Where the time went</h2>
<p class="quiet">Stages in the order of the run. Patterned: time in which the device had nothing to
compute, by what it waited for; drawn at the end of the stage that waited.</p>
{_figure(stage_bars(dumps, "bars"), "Time of every stage")}
<h3>Stages</h3>
{stage_table(dumps)}
</section>
{runs}
</main>
<footer>Stall: waiting for weights to be copied, merged or read. Host: waiting for other work of the
host. Exchange: of tensors between the devices of a group, as predicted. 1 GB is 1,000,000,000
bytes.</footer>
</body>
</html>
"""


def _introduction(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"One run: {safe(labels[0])}."
    return f"{len(labels)} runs on one axis of time: {safe(', '.join(labels))}."


def _run(label: str, dump: Dump, ident: str) -> Iterator[str]:
    yield f'<section id="{ident}" class="run" aria-labelledby="{ident}-head">'
    yield f'<h2 id="{ident}-head">{safe(label)}</h2>'
    yield '<dl class="figures">'
    for name, figure, remark in key_figures(dump):
        small = f"<small>{safe(remark)}</small>" if remark else ""
        yield f"<div><dt>{name}</dt><dd>{figure}{small}</dd></div>"
    yield "</dl>"
    if dump.recording is None:
        yield f'<p class="missing">{NO_RECORDING}</p>'
        yield checkpoint_table(dump)
    else:
        yield from _recorded(dump, label, ident)
    yield "</section>"


def _recorded(dump: Dump, label: str, ident: str) -> Iterator[str]:
    recording, total = dump.recording, dump.total_duration_ms
    assert recording is not None
    yield "<h3>Residency map</h3>"
    drawn = residency_map(recording, total, f"{ident}-map", f"Residency map of {label}")
    if drawn is None:
        yield f'<p class="missing">{NO_MAP}</p>'
    else:
        yield f'<p class="quiet">{MAP_TEXT}</p>{_figure(drawn, "Residency map")}'
    device = memory_chart(recording, total, "device", f"{ident}-device")
    yield "<h3>Memory on the device</h3>"
    yield _chart_or_words(device, "device")
    host = memory_chart(recording, total, "host", f"{ident}-host")
    yield "<h3>Memory on the host: pinned, and pageable (striped)</h3>"
    yield _chart_or_words(host, "host")
    transfers = transfer_table(recording)
    if transfers:
        yield f"<h3>Work on weights</h3>{transfers}"


def _chart_or_words(chart: str | None, where: str) -> str:
    if chart is None:
        return f'<p class="missing">{NO_MEMORY.format(where=where)}</p>'
    return _figure(chart, f"Memory on the {where}")


def _figure(drawn: str, name: str) -> str:
    """A drawing that scrolls on narrow screens, so that its text stays readable."""
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f"{drawn}</div></figure>"
    )
