"""What plans may take of a machine: its memory and the user's budgets, less a reserve."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from entracte.machine.hardware import Hardware
from entracte.residency import Residency
from entracte.units import GIB

# A share of a memory, and bytes.
Reserve = tuple[float, int]
NOTHING: Reserve = (0.0, 0)

Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]

# Of one plan, or of many.
Bytes = TypeVar("Bytes", int, Int64s)

# Beside weights and activations: what allocators cannot use, libraries' workspaces, and, on the
# host, the process itself and the frames of the video.
DEVICE_RESERVE: Reserve = (0.03, GIB // 2)
HOST_RESERVE: Reserve = (0.05, 3 * GIB)
UNIFIED_RESERVE: Reserve = (0.05, GIB)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that plans may take; on a unified machine both are of one memory.

    device_reserve, host_reserve: what of the machine's memory is left free beside them, as a share
    and bytes; none where a budget was given.
    """

    device: int
    host: int
    pinned: int | None = None
    unified: bool = False
    device_reserve: Reserve = NOTHING
    host_reserve: Reserve = NOTHING

    def allow(self, device: int, host: int) -> bool:
        """Whether a plan with these peaks fits."""
        if self.unified:
            return device + host <= min(self.device, self.host)
        if self.pinned is not None and host > self.pinned:
            return False
        return device <= self.device and host <= self.host

    def after_measuring(self) -> "Limits":
        """For a plan that has run, so that its peak is measured: half of the device's reserve.

        Without this, a plan that just fits is given up when measuring raises its predicted peak.
        """
        reserve = _more(self.device, self.device_reserve) - self.device
        return replace(self, device=self.device + reserve // 2)

    def excess(self, device: int, host: int) -> dict[str, int]:
        """How many bytes a plan's peaks are over, by what they are over."""
        found = {"the device": device - self.device, "host memory": host - self.host}
        if self.unified:
            found = {"memory": device + host - min(self.device, self.host)}
        elif self.pinned is not None:
            found["pinned memory"] = host - self.pinned
        return {what: nbytes for what, nbytes in found.items() if nbytes > 0}

    def excess_of(self, device: Int64s, host: Int64s) -> Int64s:
        """How many bytes plans' peaks are over in all, 0 for those that fit."""
        if self.unified:
            return (device + host - min(self.device, self.host)).clip(0)
        most = self.host if self.pinned is None else min(self.host, self.pinned)
        over: Int64s = (device - self.device).clip(0) + (host - most).clip(0)
        return over

    def smallest_first(self, device: Bytes, host: Bytes) -> tuple[Any, ...]:
        """What plans that do not all fit are compared by, the most important first.

        The least memory on a unified machine. Else the least of the device, among plans whose share
        of the host there is; where there is none, the least of the host.
        """
        if self.unified:
            return (device + host,)
        beyond = host > (self.host if self.pinned is None else min(self.host, self.pinned))
        return beyond, np.where(beyond, host, device), np.where(beyond, device, host)

    def machine_for(self, device: int, host: int) -> tuple[int, int]:
        """The memory that a machine needs for a plan's peaks, with the reserves: device and host.

        A unified machine needs the same of both.
        """
        if self.unified:
            device = host = device + host
        return _more(device, self.device_reserve), _more(host, self.host_reserve)


def limits_of(hardware: Hardware, wanted: Residency) -> Limits:
    """A machine's limits under a user's budgets. Budgets are taken as given."""
    for_device = UNIFIED_RESERVE if hardware.unified else DEVICE_RESERVE
    for_host = UNIFIED_RESERVE if hardware.unified else HOST_RESERVE
    device, device_reserve = _limit(hardware.device_memory, for_device, wanted.device_memory)
    host, host_reserve = _limit(hardware.host_memory, for_host, wanted.host_memory)
    pinned = _least(hardware.pinned_memory, wanted.pinned_memory)
    return Limits(device, host, pinned, hardware.unified, device_reserve, host_reserve)


def _limit(memory: int, reserve: Reserve, budget: int | None) -> tuple[int, Reserve]:
    """What plans may take of a memory, and the reserve that this is after."""
    free = _less(memory, reserve)
    return (free, reserve) if budget is None or budget > free else (budget, NOTHING)


def _less(nbytes: int, reserve: Reserve) -> int:
    share, fixed = reserve
    return max(0, int(nbytes * (1 - share)) - fixed)


def _more(nbytes: int, reserve: Reserve) -> int:
    """The least memory of which so much is left beside a reserve."""
    if nbytes <= 0:
        return 0
    share, fixed = reserve
    found = int((nbytes + fixed) / (1 - share))
    while _less(found, reserve) < nbytes:
        found += 1
    while _less(found - 1, reserve) >= nbytes:
        found -= 1
    return found


def _least(first: int | None, second: int | None) -> int | None:
    given = [each for each in (first, second) if each is not None]
    return min(given, default=None)
