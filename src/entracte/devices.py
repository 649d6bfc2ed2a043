"""Devices by name, and the backends that drive them."""

import torch

from entracte.errors import RequestError
from entracte.residency.backend import Backend
from entracte.residency.host import HostBackend


def pick_device(name: str) -> torch.device:
    """A device by its name; raises RequestError for one that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device {name!r} is none of auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name!r} is not there: torch sees no such CUDA device")
    return device


def open_backend(device: torch.device) -> Backend:
    """The backend of a device."""
    if device.type == "cuda":
        from entracte.residency.cuda import CudaBackend

        return CudaBackend(device)
    return HostBackend()
