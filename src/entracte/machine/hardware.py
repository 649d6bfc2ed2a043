"""A machine as the planner sees it: memory and speeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Hardware:
    """One device and its host.

    device_memory, host_memory: bytes that this process may take, without a reserve.
    pinned_memory: bytes that may be pinned; None: no separate limit.
    unified: the device is the CPU: its memory is the host's, and nothing overlaps with computing.
    origins: where each number of `rates` comes from, by its name.
    """

    name: str
    device_memory: int
    host_memory: int
    rates: Rates
    pinned_memory: int | None = None
    unified: bool = False
    origins: Mapping[str, Origin] = field(default_factory=dict)
