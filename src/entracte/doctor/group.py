"""Checks of several GPUs: how they reach each other, and what they gain together."""

from .findings import Check, GroupFindings

# Over less, sharing out tokens costs about what it gains.
SLOW = 50e9


def topology(found: GroupFindings) -> Check:
    """Which GPUs there are, and whether they reach each other's memory."""
    names = list(dict.fromkeys(found.names))
    counted = ", ".join(f"{found.names.count(name)} × {name}" for name in names)
    reach = "all reach each other's memory" if found.peers.direct else "they copy through the host"
    if len(names) > 1:
        advice = "A video on several of them is as slow as on the slowest: name like ones."
        return Check("GPUs", f"{counted}; {reach}", "warning", advice)
    return Check("GPUs", f"{counted}; {reach}", "good")


def between(found: GroupFindings) -> Check:
    """The link between GPUs."""
    rate, origin = found.peers.copy, "measured" if found.measured else "assumed"
    words = f"{rate / 1e9:,.0f} GB/s ({origin})"
    slow = (
        "Sharing out guidance passes exchanges little: --parallel guidance." if rate < SLOW else ""
    )
    return Check("between GPUs", words, "good", slow)


def together(found: GroupFindings) -> Check:
    """What all of them gain for a typical video."""
    if found.gain is None:
        return Check("together", "no plan for a typical video fits", "warning")
    flags = " ".join(f"cuda:{number}" for number in range(len(found.names)))
    advice = f"To use them: --devices {flags}." if found.gain.pays else "Use --device cuda:0."
    return Check("together", found.gain.words, "good", advice)
