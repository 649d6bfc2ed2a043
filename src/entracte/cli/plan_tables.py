"""What `entracte plan` prints: the machine, the work, all modes beside each other, and why."""

from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from entracte.config.wording import residency_flags
from entracte.machine.hardware import Hardware, Origin, PeerLink
from entracte.planner.decision import MODES, Decision, Option, arguments
from entracte.planner.group import GroupGain
from entracte.planner.prediction import Prediction
from entracte.planner.search import TICK
from entracte.planner.workload import PhaseLoad, Workload
from entracte.units import duration, size

from .terminal import say

WIDTH = 104  # the modes' table needs it; a narrower terminal wraps lines, which loses nothing

# Where blocks that are not on the device come from.
FROM = {"host": "", "disk": ", from files", "peer": ", among GPUs"}

# Rates that predictions rest on, and what they count.
RATES = (
    ("h2d", "host to device", 1e9, "GB/s"),
    ("disk", "disk", 1e9, "GB/s"),
    ("matmul", "matrix products", 1e12, "TFLOP/s"),
    ("merge", "merging", 1e12, "TFLOP/s"),
    ("device_copy", "device memory", 1e9, "GB/s"),
)


def print_plan(
    decision: Decision, hardware: Hardware, load: Workload, group: GroupGain | None = None
) -> None:
    """Everything about a decision. group: what several GPUs gain, where there are several."""
    console = Console(width=max(Console().width, WIDTH))
    chosen = decision.chosen
    for line in (*_machine(hardware), _allowed(decision, hardware), _work(load)):
        say(line)
    for line in () if group is None else _group(group):
        say(line)
    print()
    console.print(_modes(decision))
    print()
    say(f"{chosen.name}: {chosen.reason}")
    say(f"  {_places(chosen.prediction)}")
    say(f"  to have it: {residency_flags(arguments(chosen.prediction))}")
    print()
    console.print(_stages(chosen.prediction, group is not None))
    print()
    for option in decision.alternatives:
        say(f"{option.name}: {option.reason}")
    absent = [name for name in _names() if name not in {each.name for each in _all(decision)}]
    if absent:
        print(f"{', '.join(absent)}: left out; the video has no use for it, or a flag rules it out")


def _machine(hardware: Hardware) -> Iterator[str]:
    each = "each device" if hardware.devices > 1 else "device"
    memory = f"{size(hardware.device_memory)} of {each} and {size(hardware.host_memory)} of host"
    if hardware.unified:
        memory = f"{size(hardware.host_memory)} of"
    if hardware.pinned_memory is not None:
        memory += f" memory, of which {size(hardware.pinned_memory)} can be pinned"
    else:
        memory += " memory"
    several = f"{hardware.devices} × " if hardware.devices > 1 else ""
    yield f"machine: {several}{hardware.name}, {memory}"
    rates_by_name = asdict(hardware.rates)
    found: dict[Origin, list[str]] = {}
    for name, words, unit, unit_name in RATES:
        value = rates_by_name[name] / unit
        number = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        from_where = hardware.origins.get(name, "given")
        found.setdefault(from_where, []).append(f"{words} {number} {unit_name}")
    for origin, rates in found.items():
        yield f"  {'by ' if origin == 'data sheet' else ''}{origin}: {', '.join(rates)}"
    if hardware.peers is not None:
        origin = hardware.origins.get("peers", "given")
        yield f"  from one to another, {origin}: {describe_peers(hardware.peers)}"


def describe_peers(peers: PeerLink) -> str:
    """How devices reach each other, in words."""
    through = "" if peers.direct else " through the host"
    return (
        f"copies{through} {peers.copy / 1e9:,.0f} GB/s; exchanges {peers.exchange / 1e9:,.0f} "
        f"GB/s after {peers.latency * 1e6:.0f} us"
    )


def _group(group: GroupGain) -> Iterator[str]:
    for name, _, words in group.layouts:
        yield f"  {name}: {words}"
    yield f"  {group.words}"


def _allowed(decision: Decision, hardware: Hardware) -> str:
    limits = decision.limits
    if limits.unified:
        return f"  plans may take: {size(min(limits.device, limits.host))}"
    device = "each device" if hardware.devices > 1 else "the device"
    return (
        f"  plans may take: {size(limits.device)} of {device} and {size(limits.host)} of the host"
    )


def _work(load: Workload) -> str:
    phases = "; ".join(map(_phase, load.phases))
    return f"video: {load.frames} frames of {load.width} × {load.height}; {phases}"


def _phase(phase: PhaseLoad) -> str:
    passes = f" × {phase.passes:.3g} passes" if phase.passes != 1 else ""
    tokens = phase.video_tokens + phase.audio_tokens
    return f"{phase.name}: {phase.steps} steps{passes} over {tokens:,} tokens"


def _names() -> list[str]:
    return [f"{mode} {policy}" if mode == "snapshot" else mode for mode, policy in MODES]


def _all(decision: Decision) -> list[Option]:
    """All options in the order of the modes, the chosen one among them."""
    names = _names()
    options = (decision.chosen, *decision.alternatives)
    return sorted(options, key=lambda option: names.index(option.name))


def _modes(decision: Decision) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "mode"):
        table.add_column(column, no_wrap=True)
    for column in ("m", "k", "latency", "stall", "switch", "device", "host"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("fits")
    for option in _all(decision):
        p, is_chosen = option.prediction, option is decision.chosen
        cells = [
            "→" if is_chosen else "",
            option.name + FROM[p.way.home],
            str(p.way.resident),
            str(p.way.merged) if p.way.mode == "fused" else "",
            duration(p.latency_s),
            duration(p.stall_s),
            duration(p.switch_s),
            size(p.peak_device_bytes),
            size(p.peak_host_bytes),
            "yes" if option.fits else "no",
        ]
        style = "bold" if is_chosen else "" if option.fits else "dim"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _stages(prediction: Prediction, exchanging: bool) -> Table:
    """exchanging: with what devices exchange, where there are several."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    waits = ("of it waiting", "exchanging") if exchanging else ("of it waiting",)
    for column in ("time", *waits, "device at its peak"):
        table.add_column(column, justify="right")
    for stage in prediction.stages:
        shares = (stage.stall_s, stage.exchange_s)[: len(waits)]
        table.add_row(
            Text(stage.name),
            duration(stage.seconds),
            *(duration(share) if share >= TICK / 2 else "" for share in shares),
            size(stage.peak_device_bytes),
        )
    peak = size(prediction.peak_device_bytes)
    table.add_row("all", duration(prediction.latency_s), *("" for _ in waits), peak)
    return table


def _places(prediction: Prediction) -> str:
    """Components by place."""
    found: dict[str, list[str]] = {}
    for name, place in prediction.places.items():
        found.setdefault(place, []).append(name)
    words = [f"{place}: {', '.join(names)}" for place, names in sorted(found.items())]
    if prediction.for_peers_bytes:
        words.append(
            f"transformer: each GPU holds {size(prediction.for_peers_bytes)} for the others, and "
            f"copies {size(prediction.at_peers_bytes)} of theirs"
        )
    return "; ".join(words) if words else "no other component"
