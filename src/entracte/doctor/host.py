"""Checks of the host's memory."""

from entracte.units import GB, size

from .findings import Check, Findings

SWAP_IN_USE = 1 * GB


def host_memory(findings: Findings) -> Check:
    """The host's memory."""
    facts, memory = findings.survey.host, findings.hardware.host_memory
    if facts.total is None:
        advice = "This system does not say. Limit what weights take with --host-memory."
        return Check("host memory", f"unknown; {size(memory)} assumed", "warning", advice)
    found = f"{size(memory)} can be had of {size(facts.total)}"
    if facts.limit is not None:
        found += ", a limit of the control group"
    return Check("host memory", found, "good")


def pinned_memory(findings: Findings) -> Check:
    """How much host memory may be pinned."""
    limit = findings.hardware.pinned_memory
    if limit is None:
        lockable = findings.survey.host.lockable
        note = ""
        if lockable is not None:
            note = f"NVIDIA's driver ignores the limit for locking, {lockable:,} bytes."
        return Check("pinned memory", "no limit", "good", note)
    if limit == 0:
        return Check(
            "pinned memory",
            "refused",
            "warning",
            "Copies to the device will be around 20 times slower. Free host memory, or see whether "
            "the container or virtual machine forbids it; until then keep weights on the device.",
        )
    return Check(
        "pinned memory",
        f"about {size(limit)}",
        "warning" if isinstance(findings.full_size, str) else "good",
        "Windows lets about half of memory be pinned; what is beyond copies slower.",
    )


def swap(findings: Findings) -> Check:
    """Whether the host is already short of memory."""
    facts = findings.survey.host
    if facts.swap is None or facts.swap_used is None:
        return Check("swap", "unknown", "good")
    if facts.swap == 0:
        return Check("swap", "none", "good")
    found = f"{size(facts.swap_used)} of {size(facts.swap)} in use"
    if facts.swap_used < SWAP_IN_USE:
        return Check("swap", found, "good")
    advice = "The host is short of memory: weights may be swapped out. Close other programs."
    return Check("swap", found, "warning", advice)
