"""What plans may take of a machine: its memory and the user's budgets, less a reserve."""

from dataclasses import dataclass

from entracte.residency.modes import Residency

from .hardware import Hardware

GIB = 2**30

# Beside weights and activations: what allocators cannot use, libraries' workspaces, and, on the
# host, the process itself and the frames of the video.
DEVICE_RESERVE = (0.03, GIB // 2)
HOST_RESERVE = (0.05, 3 * GIB)
UNIFIED_RESERVE = (0.05, GIB)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that plans may take; on a unified machine both are of one memory."""

    device: int
    host: int
    pinned: int | None = None
    unified: bool = False

    def allow(self, device: int, host: int) -> bool:
        """Whether a plan's peaks fit."""
        if self.unified:
            return device + host <= min(self.device, self.host)
        if self.pinned is not None and host > self.pinned:
            return False
        return device <= self.device and host <= self.host

    def excess(self, device: int, host: int) -> dict[str, int]:
        """How many bytes a plan's peaks are over, by what they are over."""
        found = {"the device": device - self.device, "host memory": host - self.host}
        if self.unified:
            found = {"memory": device + host - min(self.device, self.host)}
        elif self.pinned is not None:
            found["pinned memory"] = host - self.pinned
        return {what: nbytes for what, nbytes in found.items() if nbytes > 0}


def limits_of(hardware: Hardware, wanted: Residency) -> Limits:
    """A machine's limits under a user's budgets. Budgets are taken as they are said."""
    reserve = UNIFIED_RESERVE if hardware.unified else DEVICE_RESERVE
    device = _less(hardware.device_memory, reserve)
    host = _less(hardware.host_memory, UNIFIED_RESERVE if hardware.unified else HOST_RESERVE)
    pinned = _least(hardware.pinned_memory, wanted.pinned_memory)
    return Limits(
        device if wanted.device_memory is None else min(device, wanted.device_memory),
        host if wanted.host_memory is None else min(host, wanted.host_memory),
        pinned,
        hardware.unified,
    )


def _less(nbytes: int, reserve: tuple[float, int]) -> int:
    return max(0, int(nbytes * (1 - reserve[0])) - reserve[1])


def _least(first: int | None, second: int | None) -> int | None:
    given = [each for each in (first, second) if each is not None]
    return min(given, default=None)
