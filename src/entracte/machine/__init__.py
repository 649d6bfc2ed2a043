"""Probes the machine: how much memory it has, and how fast it is."""

from pathlib import Path

import torch

from entracte.residency import Backend

from .hardware import Hardware
from .survey import Survey, survey

__all__ = ["Survey", "probe", "survey"]


def probe(
    backend: Backend, dtype: torch.dtype, *, folder: Path | None = None, refresh: bool = False
) -> Hardware:
    """The machine of a backend: its memory now, its rates measured once.

    Rates are kept between runs in a file; `refresh` measures them again. folder: whose files say
    how fast the disk is. What cannot be measured is assumed, and a warning logged. The device
    should be idle; what is copied and merged counts in the backend's traffic.
    """
    return survey(backend, dtype, folder, refresh).hardware
