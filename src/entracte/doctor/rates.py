"""Checks of the machine's speed against what its card should reach."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from entracte.machine.cards import practical_rates
from entracte.machine.hardware import Rates
from entracte.planner.model_profile import DISTILLED
from entracte.units import duration, size

from .findings import Check, Findings, Verdict

LEAST_SHARE = 0.6  # of what the card should reach
SLOW_LOAD = 120  # seconds
SLOW_PAGEABLE = 1e9

SLOW_LINK = "See that the card has a slot of its own with 16 lanes, and that nothing else copies."


@dataclass(frozen=True, slots=True)
class _Kind:
    """One rate: its name, what it means in practice, and likely causes if it is low."""

    title: str
    meaning: Callable[[Findings, float], str] | None
    cure: str


def _per_transformer(findings: Findings, rate: float) -> str:
    nbytes = findings.transformer_bytes
    return f"The transformer's {size(nbytes, 0)} take {duration(nbytes / rate)}."


def _per_merge(findings: Findings, rate: float) -> str:
    flops = sum(findings.figures.adapters[DISTILLED].flops)
    return f"Merging the LoRA once takes {duration(flops / rate)}."


KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "matmul": _Kind(
            "matrix products",
            None,
            "See that nothing else uses the device, that it is not hot, and its power limit.",
        ),
        "merge": _Kind(
            "merges",
            _per_merge,
            "See that Triton works and nothing else uses the device.",
        ),
        "device_copy": _Kind(
            "copies on the device",
            None,
            "See that nothing else uses the device, and its memory's clock.",
        ),
        "h2d": _Kind("host to device", _per_transformer, SLOW_LINK),
        "d2h": _Kind("device to host", _per_transformer, SLOW_LINK),
    }
)


def computed(findings: Findings) -> list[Check]:
    """The device's own rates, and those of pinned copies."""
    return [_check(findings, name, kind) for name, kind in KINDS.items()]


def pageable(findings: Findings) -> Check:
    """Copies from memory that is not pinned."""
    rate = findings.hardware.rates.pageable
    missing = findings.survey.not_measured.get("pageable")
    if missing is not None:
        return Check("pageable copies", _words("pageable", rate, "assumed"), "warning", missing)
    slow = rate < SLOW_PAGEABLE
    return Check(
        "pageable copies",
        _words("pageable", rate, "measured"),
        "warning" if slow else "good",
        f"{_per_transformer(findings, rate)} Leave weights in pinned memory." if slow else "",
    )


def disk(findings: Findings) -> Check:
    """How long loading the model takes at first."""
    rate, survey = findings.hardware.rates.disk, findings.survey
    load = findings.model_bytes / rate
    takes = f"The first load of {size(findings.model_bytes)} takes {duration(load)}"
    if survey.hardware.origins.get("disk") != "measured":
        found = _words("disk", rate, "assumed")
        if not findings.folder_given:
            advice = f"{takes}, if so. Name the model's folder with --model to have it measured."
            return Check("disk", found, "good", advice)
        return Check("disk", found, "good", f"Not measured: {survey.not_measured.get('disk', '')}.")
    slow = load > SLOW_LOAD
    advice = f"{takes}; later requests read nothing." if slow else f"{takes}."
    if slow:
        advice += " Put the files on a local SSD."
    if survey.disk_cached:
        advice += " The files may have been in memory, and the disk slower."
    return Check("disk", _words("disk", rate, "measured"), "warning" if slow else "good", advice)


def _check(findings: Findings, name: str, kind: _Kind) -> Check:
    rate = _rate(findings.hardware.rates, name)
    missing = findings.survey.not_measured.get(name)
    if missing is not None:
        # Without matrix products, nothing else matters.
        verdict: Verdict = "problem" if name == "matmul" else "warning"
        found = _words(name, rate, "assumed")
        return Check(kind.title, found, verdict, f"It could not be measured: {missing}.")
    found, meaning = (
        _words(name, rate, "measured"),
        kind.meaning(findings, rate) if kind.meaning else "",
    )
    expected = _expected(findings, name)
    if not findings.on_gpu:
        return Check(kind.title, found, "good")
    if expected is None:
        return Check(kind.title, found, "good", f"{meaning} This card is not in our table.".strip())
    share = rate / expected
    found += f", {share:.0%} of what the card should reach"
    if share >= LEAST_SHARE:
        return Check(kind.title, found, "good", meaning)
    return Check(kind.title, found, "warning", f"{meaning} {kind.cure}".strip())


def _expected(findings: Findings, name: str) -> float | None:
    if findings.card is None:
        return None
    rates, _ = practical_rates(findings.card)
    return _rate(rates, name)


def _rate(rates: Rates, name: str) -> float:
    return float(asdict(rates)[name])


def _words(name: str, rate: float, origin: str) -> str:
    if name in ("matmul", "merge"):
        words = f"{rate / 1e12:,.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"
    else:
        words = f"{rate / 1e9:,.1f} GB/s"
    return f"{words} ({origin})"
