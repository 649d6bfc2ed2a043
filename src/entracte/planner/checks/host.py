"""Checks of the host's memory."""

from .findings import ACTIVATIONS, GB, TRANSFORMER, Check, Findings, duration, gigabytes

ENOUGH_ON_DEVICE = 48 * GB + ACTIVATIONS  # --mode fused, which needs no copy on the host
LITTLE = 8 * GB  # for the process itself, staging and the video
BOTH_SETS = 77 * GB
SWAP_IN_USE = 1 * GB


def host_memory(findings: Findings) -> Check:
    """What the host's memory is enough for."""
    facts, memory = findings.survey.host, findings.hardware.host_memory
    if facts.total is None:
        advice = "This system does not say. Limit what weights take with --host-memory."
        return Check("host memory", f"unknown; {gigabytes(memory)} assumed", "warning", advice)
    found = f"{gigabytes(memory)} can be had of {gigabytes(facts.total)}"
    if facts.limit is not None:
        found += ", a limit of the control group"
    if not findings.on_gpu:
        return _without_gpu(found, memory)
    needed = TRANSFORMER + ACTIVATIONS
    if memory >= BOTH_SETS + ACTIVATIONS:
        return Check("host memory", found, "good", "Enough for every mode.")
    if memory >= needed:
        advice = "Enough to stream the transformer (--mode fused), not for a second set of weights."
        return Check("host memory", found, "good", f"{advice} --mode snapshot needs 77 GB.")
    if findings.hardware.device_memory >= ENOUGH_ON_DEVICE and memory >= LITTLE:
        advice = "Little, but the transformer fits the device (--mode fused, --mode resident)."
        return Check("host memory", found, "good", f"{advice} Streaming would need 38 GB.")
    seconds = TRANSFORMER / findings.hardware.rates.disk
    return Check(
        "host memory",
        found,
        "warning",
        "Streaming the full-size transformer needs 38 GB. Blocks that fit neither the device nor "
        f"the host are read from the disk for every pass (--place transformer=disk): up to "
        f"{duration(seconds)} each. Keep as many as fit with --resident-blocks.",
    )


def pinned_memory(findings: Findings) -> Check:
    """How much of the host's memory may be pinned."""
    limit = findings.hardware.pinned_memory
    if limit is None:
        lockable = findings.survey.host.lockable
        note = ""
        if lockable is not None:
            note = f"NVIDIA's driver does not heed the limit for locking, {lockable:,} bytes."
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
        f"about {gigabytes(limit)}",
        "good" if limit >= TRANSFORMER else "warning",
        "Windows lets about half of memory be pinned; what is beyond copies slower.",
    )


def swap(findings: Findings) -> Check:
    """Whether the host is already short of memory."""
    facts = findings.survey.host
    if facts.swap is None or facts.swap_used is None:
        return Check("swap", "unknown", "good")
    if facts.swap == 0:
        return Check("swap", "none", "good")
    found = f"{gigabytes(facts.swap_used)} of {gigabytes(facts.swap)} in use"
    if facts.swap_used < SWAP_IN_USE:
        return Check("swap", found, "good")
    advice = "The host is short of memory: weights may be swapped out. Close other programs."
    return Check("swap", found, "warning", advice)


def _without_gpu(found: str, memory: int) -> Check:
    if memory >= ENOUGH_ON_DEVICE:
        advice = "Enough for the full-size model with --mode fused --place text_encoder=disk."
        return Check("host memory", found, "good", advice)
    return Check(
        "host memory",
        found,
        "warning",
        f"The full-size model needs {gigabytes(ENOUGH_ON_DEVICE)} without a GPU. The demonstration "
        "model works.",
    )
