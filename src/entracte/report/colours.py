"""The palette of the report, the plan's picture and the page, by what colours stand for.

They are Okabe and Ito's, or as far apart in lightness, so that they can be distinguished with every
kind of colour vision and in grey. What colour says, words or a pattern say as well.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from entracte.trace.dump import State
from entracte.trace.waits import Cause

BLUE, SKY, GREEN, YELLOW = "#2f6fb0", "#56b4e9", "#009e73", "#f0d83c"
ORANGE, VERMILLION, PINK, GREY = "#e69f00", "#d55e00", "#cc79a7", "#8b95a1"
PURPLE = "#6a3d9a"

# Of the known components, so that all charts of a page agree.
COMPONENTS: Mapping[str, str] = MappingProxyType(
    {
        "transformer": BLUE,
        "text_encoder": ORANGE,
        "connectors": PINK,
        "video_vae": GREEN,
        "audio_vae": YELLOW,
        "vocoder": VERMILLION,
        "upsampler": SKY,
    }
)
OTHERS = (PURPLE, "#b9a77c", "#44505c")
ACTIVATIONS = GREY  # and all else that is not weights

# Of the stages that take longest, calm, as what they wait for is the news.
STAGES = ("#2f6fb0", "#7db3dc", "#3f8f7f", "#a5cdb9", "#8a80bd")
OTHER_STAGES = "#aab3bd"

WAITS: Mapping[Cause, str] = MappingProxyType(
    {
        "copy": VERMILLION,
        "merge": "#b3247a",
        "read": ORANGE,
        "launch": "#6a4fb3",
        "exchange": "#0f7c8c",
        "host": "#3d454e",
    }
)

STATES: Mapping[State, tuple[str, str]] = MappingProxyType(
    {
        "disk": ("s-disk", "on disk"),
        "host": ("s-host", "in host memory"),
        "in flight": ("s-flight", "in flight"),
        "device": ("s-device", "on the device: base"),
        "merged": ("s-merged", "on the device: merged"),
        "both": ("s-both", "on the device: base and merged"),
    }
)

# Of pages and of charts on them: text, quiet text, behind the page, behind its parts, soft areas,
# rules, what may be clicked, and what is wrong.
LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#1d2126",
        "quiet": "#5b626b",
        "ground": "#eef1f4",
        "paper": "#ffffff",
        "soft": "#f6f7f9",
        "rule": "#d9dde2",
        "accent": "#2f6fb0",
        "alarm": "#b04300",
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#e6e9ed",
        "quiet": "#a2aab4",
        "ground": "#0d0f12",
        "paper": "#16191d",
        "soft": "#1c2026",
        "rule": "#343a42",
        "accent": "#6fb2f0",
        "alarm": "#ff9a57",
    }
)

_LIGHT = """
.chart text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: %(ink)s; }
.chart .strong { font-weight: 600; }
.chart .title { font-size: 16px; font-weight: 600; }
.chart .quiet { fill: %(quiet)s; }
.chart .inside { fill: #ffffff; font-weight: 600; }
.chart .inside-dark { fill: #14181c; font-weight: 600; }
.chart .paper { fill: %(paper)s; }
.chart .plot { fill: %(soft)s; }
.chart .grid { stroke: %(rule)s; }
.chart .axis { stroke: #8a929c; fill: none; }
.chart .edge { stroke: %(paper)s; stroke-width: 1; }
.chart .band-0 { fill: #e3e8ee; }
.chart .band-1 { fill: #d0d8e1; }
.chart .band-edge { stroke: #7b8794; stroke-width: 0.8; stroke-dasharray: 2 3; fill: none; }
.chart .peak { stroke: %(ink)s; stroke-width: 1.6; fill: none; }
.chart .lens { fill: none; stroke: %(ink)s; stroke-width: 1.4; }
.chart .beam { fill: %(ink)s; fill-opacity: 0.06; }
.chart .runs { fill: #10141a; }
.chart .limit { stroke: #c0272d; stroke-width: 1.6; stroke-dasharray: 7 4; }
.chart .limit-name { fill: #c0272d; font-weight: 600; }
.chart .s-disk { fill: #e9ecef; }
.chart .s-host { fill: #bcc5cf; }
.chart .s-flight { fill: #f7dc3f; }
.chart .s-device { fill: #2f6fb0; }
.chart .s-merged { fill: #d9641a; }
.chart .s-both { fill: #a98be0; }
"""

_DARK = """
.chart text { fill: %(ink)s; }
.chart .quiet { fill: %(quiet)s; }
.chart .inside { fill: #ffffff; }
.chart .inside-dark { fill: #14181c; }
.chart .paper { fill: %(paper)s; }
.chart .plot { fill: %(soft)s; }
.chart .grid { stroke: %(rule)s; }
.chart .axis { stroke: #7b8590; }
.chart .edge { stroke: %(paper)s; }
.chart .band-0 { fill: #2a313a; }
.chart .band-1 { fill: #38424e; }
.chart .band-edge { stroke: #8a96a3; }
.chart .peak { stroke: #f3f5f7; }
.chart .lens { stroke: #f3f5f7; }
.chart .beam { fill: #ffffff; }
.chart .runs { fill: #0b0e12; }
.chart rect.runs { stroke: #a2aab4; }
.chart .limit { stroke: #ff7b72; }
.chart .limit-name { fill: #ff7b72; }
.chart .s-disk { fill: #262c33; }
.chart .s-host { fill: #55606c; }
.chart .s-flight { fill: #ffe65c; }
.chart .s-device { fill: #3f86cf; }
.chart .s-merged { fill: #ef7d32; }
.chart .s-both { fill: #c9b2f5; }
"""

_PRINT = ".chart * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }\n"


def chart_style() -> str:
    """CSS of every chart: light on paper and by default, dark where the reader's system is."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{{_DARK % DARK}}}\n"
    return f"{_LIGHT % LIGHT}{dark}@media print {{\n{_PRINT}}}\n"


def component_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every component, those that we do not know included."""
    others = [name for name in names if name not in COMPONENTS]
    return {
        name: COMPONENTS.get(name) or OTHERS[others.index(name) % len(OTHERS)] for name in names
    }


def scheme_css() -> str:
    """Custom properties for pages, such as `--ink`: light on paper, else as the reader's system."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{_root(DARK)}}}\n"
    return _root(LIGHT) + dark


def component_css() -> str:
    """Custom properties: `--component-NAME`, `--component-other-NUMBER` and `--activations`."""
    colours = {f"component-{name}": colour for name, colour in COMPONENTS.items()}
    colours |= {f"component-other-{number}": colour for number, colour in enumerate(OTHERS)}
    return _root(colours | {"activations": ACTIVATIONS})


def _root(colours: Mapping[str, str]) -> str:
    lines = "".join(f"  --{name}: {colour};\n" for name, colour in colours.items())
    return f":root {{\n{lines}}}\n"


def letters_on(colour: str) -> str:
    """The class of letters that can be read on a colour, given as #rrggbb."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "inside" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "inside-dark"
