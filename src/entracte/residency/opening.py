"""The backend of a device."""

import torch

from .backend import Backend
from .host import HostBackend


def open_backend(device: torch.device) -> Backend:
    """A new backend for the CPU or a CUDA device."""
    if device.type == "cuda":
        from .cuda import CudaBackend

        return CudaBackend(device)
    return HostBackend()
