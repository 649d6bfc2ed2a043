"""A simulated accelerator, which finds races without a device. Public, and so in the wheel.

Whoever uses the device manager for a pipeline, or writes a backend, can test against it:
`docs/how-to/device-manager.md` shows how. Entracte's own tests and benchmarks do the same.
"""

from .accelerator import SimulatedAccelerator
from .clock import Span
from .group import SimulatedGroup
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
    "SimulatedGroup",
    "SimulatedRates",
    "Span",
    "UnjoinedTask",
    "UnorderedRead",
    "UnorderedWrite",
    "UseAfterRelease",
]
