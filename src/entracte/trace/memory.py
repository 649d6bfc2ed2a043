"""The memory of this process."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from entracte.units import MIB


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory at the end of a stage, in MiB; peaks are since the process or the stage began.

    Device figures are of this process on its device, 0 on the CPU.
    """

    allocated_mb: float
    reserved_mb: float
    peak_allocated_mb: float
    peak_reserved_mb: float
    peak_host_anon_mb: float

    @property
    def peak_mb(self) -> float:
        """The peak on the device, or on the host without one."""
        return self.peak_allocated_mb or self.peak_host_anon_mb


def read_memory(device: torch.device, for_peers: int = 0) -> Memory:
    """Memory of this process now. for_peers: bytes on the device beside torch's."""
    host = _host_bytes() / MIB
    if device.type != "cuda":
        return Memory(0.0, 0.0, 0.0, 0.0, host)
    return Memory(
        (torch.cuda.memory_allocated(device) + for_peers) / MIB,
        (torch.cuda.memory_reserved(device) + for_peers) / MIB,
        (torch.cuda.max_memory_allocated(device) + for_peers) / MIB,
        (torch.cuda.max_memory_reserved(device) + for_peers) / MIB,
        host,
    )


def _host_bytes() -> int:
    """Anonymous memory where the system reports it (Linux), else the peak resident size."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
