"""How fast stages compute: a small table of measurements, corrected by what this machine did."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from entracte.machine.hardware import Hardware

from .work import StageWork

# What a stage reaches of the rate of matrix products. The transformer's: measured on an H200, where
# steps of 1,536 and 6,144 tokens took 0.342 s and 1.332 s (`benchmarks/full_size.py`). The others
# have not been measured on a GPU: a half is assumed, and for convolutions a third.
EFFICIENCY: Mapping[str, float] = MappingProxyType(
    {
        "denoise": 0.80,
        "refine": 0.80,
        "encode text": 0.5,
        "connect text": 0.5,
        "encode images": 0.35,
        "upsample": 0.35,
        "decode audio": 0.35,
        "decode video": 0.35,
    }
)

# What the host needs to hand one block's kernels to a GPU, from the same measurement.
LAUNCH_S = 1.25e-3

# A correction beyond these is no speed, but something else that went on meanwhile.
LEAST, MOST = 0.02, 50.0


def kind(stage: str) -> str:
    """A stage's name without the phase that it belongs to."""
    return stage.partition(" (")[0]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrections of computing times by kind of stage: measured over predicted seconds.

    memory: the same, of activations, for the whole model.
    """

    corrections: Mapping[str, float] = field(default_factory=dict)
    memory: float = 1.0

    def seconds(self, stage: StageWork, hardware: Hardware) -> float:
        """How long a stage computes when all its weights are at hand."""
        name = kind(stage.name)
        seconds = stage.flops / (EFFICIENCY[name] * hardware.rates.matmul)
        if not hardware.unified:
            seconds += stage.calls * LAUNCH_S
        return seconds * self.corrections.get(name, 1.0)

    def corrected_memory(self, stage: StageWork) -> StageWork:
        """The stage with the activations that it takes by what was measured."""
        return replace(stage, activations=int(stage.activations * self.memory))

    def corrected(
        self, predicted: Mapping[str, float], measured: Mapping[str, float]
    ) -> "Calibration":
        """With what a run took, by stage; both without what it waited for weights."""
        sums: dict[str, tuple[float, float]] = {}
        for name, seconds in predicted.items():
            if name in measured:
                before = sums.get(kind(name), (0.0, 0.0))
                sums[kind(name)] = (before[0] + seconds, before[1] + measured[name])
        found = {
            name: min(max(took / said, LEAST), MOST) * self.corrections.get(name, 1.0)
            for name, (said, took) in sums.items()
            if said > 0 and took > 0
        }
        return replace(self, corrections={**self.corrections, **found})
