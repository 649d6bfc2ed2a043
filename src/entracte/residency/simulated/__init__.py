"""A simulated accelerator: finds races without a device. For tests and simulations."""

from .accelerator import SimulatedAccelerator
from .clock import Span
from .races import (
    HostWaitInStep,
    NotLent,
    RaceError,
    UnjoinedTask,
    UnorderedRead,
    UnorderedWrite,
    UseAfterRelease,
)
from .rates import DEFAULT, SimulatedRates

__all__ = [
    "DEFAULT",
    "HostWaitInStep",
    "NotLent",
    "RaceError",
    "SimulatedAccelerator",
    "SimulatedRates",
    "Span",
    "UnjoinedTask",
    "UnorderedRead",
    "UnorderedWrite",
    "UseAfterRelease",
]
