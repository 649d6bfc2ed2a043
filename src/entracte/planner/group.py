"""What several devices gain over one of them."""

from collections.abc import Callable
from dataclasses import dataclass

from entracte.errors import BudgetError, ResidencyError
from entracte.machine.hardware import Hardware
from entracte.parallel import Layout
from entracte.units import duration

from .decision import Decision
from .workload import PhaseLoad, Workload

# Several devices must be quicker by this share. Predictions are hardly more exact.
WORTH_SHARING = 0.05


@dataclass(frozen=True, slots=True)
class GroupGain:
    """A plan for several devices beside that for one.

    layouts: by phase, with their words. together_s, alone_s: seconds of a request on all of them
    and on one; None where none of its plans fits.
    """

    devices: int
    layouts: tuple[tuple[str, Layout, str], ...]
    together_s: float
    alone_s: float | None

    @property
    def times_as_fast(self) -> float | None:
        return None if self.alone_s is None else self.alone_s / self.together_s

    @property
    def pays(self) -> bool:
        """Whether the devices are worth more than one of them."""
        times = self.times_as_fast
        return times is None or times > 1 + WORTH_SHARING

    @property
    def words(self) -> str:
        """Such as "2 GPUs take 6.38 s, one 9.91 s: 1.55 times as fast"."""
        took = f"{self.devices} GPUs take {duration(self.together_s)}"
        if self.alone_s is None:
            return f"{took}; no plan fits one"
        one = f"{took}, one {duration(self.alone_s)}"
        if not self.pays:
            return f"{one}: one GPU is as good"
        return f"{one}: {self.times_as_fast:.2f} times as fast"


def compare(
    decision: Decision,
    hardware: Hardware,
    load: Workload,
    plan: Callable[[Hardware], Decision],
) -> GroupGain:
    """What the devices of a machine gain. plan: decides for a machine, as it did for this one."""
    try:
        alone = plan(hardware.alone()).chosen.prediction.latency_s
    except (BudgetError, ResidencyError):  # or it is asked for what one device cannot have
        alone = None
    phases = zip(load.phases, decision.layouts, strict=True)
    layouts = tuple((p.name, layout, describe_layout(layout, p)) for p, layout in phases)
    return GroupGain(hardware.devices, layouts, decision.chosen.prediction.latency_s, alone)


def describe_layout(layout: Layout, phase: PhaseLoad) -> str:
    """How a phase is shared out, in words."""
    rows = min(layout.rows, len(phase.guidance.passes()))
    tokens = f"{layout.row} share the video's tokens" if layout.row > 1 else ""
    if rows == 1:
        return tokens or "every GPU computes all of it"
    if not tokens:
        return f"{rows} share the guidance passes"
    return f"{rows} rows share the guidance passes, and in each {tokens}"
