"""A machine as the planner sees it: memory and speeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

# Where a number comes from. assumed: from a similar machine.
Origin = Literal["measured", "data sheet", "assumed", "given"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Practical speeds.

    matmul: floating-point operations per second of large matrix products in the model's dtype.
    merge: the same, of merging adapters into weights.
    device_copy: bytes read and written per second when the device copies within its memory.
    h2d, d2h: bytes per second to the device and back, pinned. pageable: the same, not pinned.
    disk: bytes per second read from the model's folder, not cached.
    """

    matmul: float
    merge: float
    device_copy: float
    h2d: float
    d2h: float
    pageable: float
    disk: float


@dataclass(frozen=True, slots=True)
class PeerLink:
    """How the GPUs of a machine reach each other.

    copy: bytes per second from one to another, while as many go the other way.
    latency, exchange: of an all-to-all: its seconds, however small, and the bytes per second that
        each GPU sends while it receives as many.
    direct: they reach each other's memory; otherwise through the host's.
    """

    copy: float
    latency: float
    exchange: float
    direct: bool

    def exchange_seconds(self, times: int, nbytes: int) -> float:
        """So many all-to-alls, in which a GPU sends so many bytes together."""
        return times * self.latency + nbytes / self.exchange


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine: devices of one kind, which make a video together, and their host.

    device_memory, host_memory: bytes that may be taken of each device, and of the host by all
        processes together, without a reserve.
    pinned_memory: bytes that may be pinned; None: no separate limit.
    unified: the device is the CPU: its memory is the host's, and nothing overlaps with computing.
    origins: where each number of `rates` comes from, by its name; of `peers`, by "peers".
    devices: how many there are. peers: how they reach each other, where there are several.
    """

    name: str
    device_memory: int
    host_memory: int
    rates: Rates
    pinned_memory: int | None = None
    unified: bool = False
    origins: Mapping[str, Origin] = field(default_factory=dict)
    devices: int = 1
    peers: PeerLink | None = None

    def alone(self) -> "Hardware":
        """One of the devices by itself."""
        return replace(self, devices=1, peers=None)
