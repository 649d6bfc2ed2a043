"""SVG helpers."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from .colours import WAITS, chart_style

LETTER = 6.7  # about what one takes at 12 px
LINE = 16
LINE_LOOK = "a line"  # in a legend, of what is no area

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe(words: str) -> str:
    """Text escaped for XML, without characters that XML forbids."""
    return escape(_NOT_XML.sub("\ufffd", words))


def number(value: float) -> str:
    """A coordinate without needless digits, the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    where = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f"<text{of_kind} {where}>{safe(words)}</text>"


def rect(
    x: float, y: float, width: float, height: float, look: str, title: str = "", more: str = ""
) -> str:
    """look: attributes of its appearance. title: its tooltip."""
    where = (
        f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" {look}'
    )
    extra = f" {more}" if more else ""
    if not title:
        return f"<rect {where}{extra}/>"
    return f"<rect {where}{extra}><title>{safe(title)}</title></rect>"


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    ends = " ".join(
        f'{name}="{number(v)}"'
        for name, v in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    )
    return f'<line class="{kind}" {ends}/>'


def legend(
    entries: Sequence[tuple[str, str]], x: float, y: float, width: float
) -> tuple[list[str], float]:
    """Boxes with words, in as many rows as needed; returns the drawing and its height.

    entries: how the box looks, and the words.
    """
    drawn, at, row = [], x, 0
    for look, words in entries:
        wide = 38 + LETTER * len(words)
        if at + wide > x + width and at > x:
            at, row = x, row + 1
        top = y + row * (LINE + 4)
        if look == LINE_LOOK:
            drawn.append(line("peak", at, top + 7, at + 13, top + 7))
        else:
            drawn.append(rect(at, top, 13, 13, look))
        drawn.append(text(at + 19, top + 11, words))
        at += wide
    return drawn, (row + 1) * (LINE + 4) if entries else 0


def wait_patterns(ident: str) -> str:
    """Patterns for the causes of waits; `wait_look` refers to them."""
    marks = {
        "copy": '<path d="M-2 2l4-4M0 8l8-8M6 10l4-4" stroke="#fff" stroke-width="2"/>',
        "merge": '<path d="M0 0l8 8M0 8l8-8" stroke="#fff" stroke-width="1.2"/>',
        "read": '<path d="M2 0v8M6 0v8" stroke="#fff" stroke-width="1.4"/>',
        "launch": '<path d="M0 4h8" stroke="#fff" stroke-width="1.4"/>',
        "exchange": '<path d="M0 2h8M0 6h8" stroke="#fff" stroke-width="1.2"/>',
        "host": '<circle cx="4" cy="4" r="1.5" fill="#fff"/>',
    }
    return "".join(
        f'<pattern id="{ident}-{cause}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{colour}"/>{marks[cause]}</pattern>'
        for cause, colour in WAITS.items()
    )


def wait_look(ident: str, cause: str) -> str:
    return f'fill="url(#{ident}-{cause})"'


def document(
    body: Iterable[str],
    size: tuple[float, float],
    ident: str,
    title: str,
    description: str,
    alone: bool = False,
) -> str:
    """An SVG element with a name and a description for screen readers.

    ident: unique on the page. alone: with everything that a file needs.
    """
    width, height = number(size[0]), number(size[1])
    style = f"<style>{chart_style()}</style>" if alone else ""
    paper = rect(0, 0, size[0], size[1], 'class="paper"') if alone else ""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" id="{ident}" role="img" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'aria-labelledby="{ident}-title {ident}-text">',
            f'<title id="{ident}-title">{safe(title)}</title>',
            f'<desc id="{ident}-text">{safe(description)}</desc>{style}{paper}',
            *body,
            "</svg>",
        ]
    )


def step_size(span: float, most: int) -> float:
    """The roundest step that divides a span into at most that many."""
    for power in range(-9, 16):
        for digit in (1, 2, 5):
            step = digit * 10.0**power
            if span / step <= most:
                return step
    return span


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"
