"""Facts about a device."""

import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from entracte.residency import device_errors

# Of PCI Express, by gigatransfers per second; and bytes per second of a lane, in practice.
GENERATIONS: Mapping[str, int] = MappingProxyType(
    {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
)
LANE: Mapping[int, float] = MappingProxyType(
    {1: 0.2e9, 2: 0.4e9, 3: 0.78e9, 4: 1.56e9, 5: 3.44e9, 6: 6.9e9}
)


@dataclass(frozen=True, slots=True)
class Link:
    """A PCI Express link: its generation when it is busy, and how many lanes it has."""

    generation: int
    lanes: int

    @property
    def bytes_per_second(self) -> float:
        """Practical speed of the link."""
        return LANE[self.generation] * self.lanes


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Fields are None for the CPU, or if unknown.

    total, free: bytes. own: of what is not free, what this process has taken from torch's
    allocator. slot: the PCI address.
    """

    name: str
    total: int | None = None
    free: int | None = None
    own: int = 0
    capability: tuple[int, int] | None = None
    driver: str | None = None
    slot: str | None = None
    link: Link | None = None


def device_facts(device: torch.device, for_peers: int = 0) -> DeviceFacts:
    """Facts about the CPU or a CUDA device. Raises DeviceFault if CUDA does not respond.

    for_peers: bytes that this process has there beside torch's.
    """
    if device.type != "cuda":
        return DeviceFacts(processor_name())
    with device_errors("asking the device"):
        properties = torch.cuda.get_device_properties(device)
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device) + for_peers
    slot = _slot(properties)
    return DeviceFacts(
        name=properties.name,
        total=total,
        free=free,
        own=own,
        capability=(properties.major, properties.minor),
        driver=driver_version(),
        slot=slot,
        link=None if slot is None else link_of(Path("/sys/bus/pci/devices") / slot),
    )


def _slot(properties: Any) -> str | None:
    """The PCI address, from properties that torch's type stubs lack."""
    if not hasattr(properties, "pci_bus_id"):
        return None
    domain, bus, number = (
        properties.pci_domain_id,
        properties.pci_bus_id,
        properties.pci_device_id,
    )
    return f"{domain:04x}:{bus:02x}:{number:02x}.0"


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(cpuinfo), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "CPU"


def driver_version(proc: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The NVIDIA driver's version; None if not found."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", _text(proc), re.MULTILINE)
    if found:
        return found[1]
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    return lines[0] if lines else None


def link_of(folder: Path) -> Link | None:
    """The link of a device by its folder in sysfs; None if unknown.

    Idle cards slow their links down, so the speed is the highest that both ends support.
    """
    lanes = _text(folder / "current_link_width").strip()
    if not lanes.isdecimal() or not 1 <= int(lanes) <= 32:
        return None
    ends = [folder.resolve(), folder.resolve().parent]
    speeds = [_text(end / "max_link_speed").split(" ")[0].strip() for end in ends]
    known = [GENERATIONS[speed] for speed in speeds if speed in GENERATIONS]
    return Link(min(known), int(lanes)) if known else None


def _text(path: Path) -> str:
    """A file's text; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
