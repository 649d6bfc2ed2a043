"""Measurements for tests and simulations."""

from .clock import Span
from .machine import Machine


class Gauges:
    """Bytes, simulated seconds, and the log of the simulated accelerator."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def device_bytes(self) -> int:
        return self._machine.memory.device.used

    @property
    def peak_device_bytes(self) -> int:
        return self._machine.memory.device.peak

    @property
    def host_bytes(self) -> int:
        return self._machine.memory.host.used

    @property
    def peak_host_bytes(self) -> int:
        return self._machine.memory.host.peak

    @property
    def pinned_bytes(self) -> int:
        return self._machine.memory.pinned.used

    @property
    def seconds(self) -> float:
        """Simulated time at which everything that was started is done."""
        return max(each.seconds for each in self._machine.participants)

    @property
    def compute_seconds(self) -> float:
        """Simulated computing time: the sum of `work`."""
        return self._machine.timing.compute_seconds

    @property
    def stall_seconds(self) -> float:
        """Simulated time between the first and the last `work` in which none ran.

        Either the compute stream waited, or merges and copies took the processor from it.
        """
        return self._machine.timing.stall_seconds

    @property
    def log(self) -> list[Span]:
        """The log, in the order of enqueueing; empty unless it is kept."""
        return self._machine.timing.log
