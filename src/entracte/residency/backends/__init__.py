"""Backends: devices that hold weights."""

import torch

from .host import HostBackend
from .peers import Peers
from .protocol import Backend


def open_backend(device: torch.device, peers: Peers | None = None) -> Backend:
    """A new backend for the CPU or a CUDA device.

    peers: the ranks of the group that it belongs to, which all open theirs now (default: none).
    """
    if device.type == "cuda":
        from .cuda import CudaBackend

        return CudaBackend(device, peers=peers)
    return HostBackend(peers=peers)
