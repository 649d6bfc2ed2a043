"""Devices by name."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from entracte.errors import RequestError


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a CUDA device the current one: where Triton launches, whatever its arguments are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def pick_device(name: str) -> torch.device:
    """A device by its name; raises RequestError for one that this machine does not have.

    A number alone is a CUDA device's.
    """
    if name.isdecimal():
        name = f"cuda:{name}"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device {name!r} is not one of auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device {name!r} is not one of auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name!r} does not exist: torch sees no such CUDA device")
    return device


def pick_devices(names: Sequence[str]) -> list[torch.device]:
    """Several devices, for one rank each; raises RequestError for those that this machine lacks."""
    found = [pick_device(name) for name in names]
    whole = [
        torch.device("cuda", each.index or 0) if each.type == "cuda" else each for each in found
    ]
    for device in whole:
        if device.type == "cuda" and whole.count(device) > 1:
            raise RequestError(f"device {device} is named twice; a rank has one of its own")
    if len({each.type for each in whole}) > 1:
        raise RequestError("a group has GPUs only, or CPUs only")
    return whole
