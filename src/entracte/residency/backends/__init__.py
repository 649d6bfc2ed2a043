"""Backends: devices that hold weights."""

import torch

from .host import HostBackend
from .protocol import Backend


def open_backend(device: torch.device) -> Backend:
    """A new backend for the CPU or a CUDA device."""
    if device.type == "cuda":
        from .cuda import CudaBackend

        return CudaBackend(device)
    return HostBackend()
