"""Whether and how the full-size model works, according to the planner."""

from entracte.config.wording import residency_flags
from entracte.planner.decision import arguments
from entracte.planner.forecast import HEIGHT, WIDTH
from entracte.units import duration, size

from .findings import Check, Findings

VIDEO = f"A video of {WIDTH}x{HEIGHT} and 121 frames"


def full_size(findings: Findings) -> Check:
    """The plan for a usual video, or why there is none."""
    name, found = "full-size model", findings.full_size
    if isinstance(found, str):
        advice = f"{VIDEO}: {found}. The demonstration model works."
        return Check(name, "does not fit", "warning", advice)
    memory = size(found.peak_device_bytes + found.peak_host_bytes)
    if not findings.hardware.unified:
        memory = (
            f"{size(found.peak_device_bytes)} of the device and "
            f"{size(found.peak_host_bytes)} of the host"
        )
    from_files = found.way.home == "disk"
    flags = residency_flags(arguments(found))
    advice = f"{VIDEO} takes {duration(found.latency_s)} and {memory}, with {flags}"
    if from_files:
        advice += ", which reads the transformer from the disk at every step"
    advice += f". `entracte plan --height {HEIGHT} --width {WIDTH}` says more."
    return Check(name, "fits", "warning" if from_files else "good", advice)
