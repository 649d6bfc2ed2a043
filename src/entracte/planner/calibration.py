"""How fast stages compute: from their declared efficiency, corrected by what this machine did."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from entracte.machine.hardware import Hardware
from entracte.stages import ENCODE_TEXT, kind

from .work import StageWork

# What a GPU takes for one block besides its share of the products, and what the host takes to
# launch a block's kernels meanwhile. Measured with the efficiency of the transformer's loops.
BLOCK_S = 0.68e-3
LAUNCH_S = 3.0e-3

# What a prompt takes from graphs, as a share of what it takes with the host launching its kernels:
# 21 ms instead of 43 to 66, on the hosts of an H200 and an H100.
TEXT_FROM_GRAPHS = 0.37

# Of a block's time besides products, the share that its tokens take; the rest is the same however
# few they are. On two H200s blocks of half the tokens took 2.96 and 3.59 ms, of all 5.41 and 6.76.
BLOCK_OF_TOKENS = 0.57

# What the host takes to launch one exchange: measured on two H200s, where blocks that share 6,144
# tokens took it 5.4 ms, with nine exchanges.
LAUNCH_EXCHANGE_S = 0.27e-3

# What the link gives over a whole request, as a share of what it gives to a few copies; and by what
# share of their time blocks take longer while it is busy. Measured on an H100, the first on a host
# with other users, without whom it is 1 (docs/reference/measurements.md, "The link").
LINK_SHARE = 0.94
BESIDE_COPIES = 0.06

# How many times as fast as in bfloat16 linears multiply in float8, with what quantises: on an H200
# six blocks with 6,144 tokens took 24.0 and 31.5 ms instead of 35.2 and 44.3.
FLOAT8_GAIN = 1.8

# A correction beyond these is due to something else that went on meanwhile.
LEAST, MOST = 0.02, 50.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrections of computing times by kind of stage: measured over predicted seconds.

    memory: the same, of activations, for the whole model.
    """

    corrections: Mapping[str, float] = field(default_factory=dict)
    memory: float = 1.0

    def seconds(self, work: StageWork, hardware: Hardware) -> float:
        """How long a stage computes, and exchanges, when all its weights are at hand."""
        flops = work.flops
        if not hardware.unified:  # a CPU has no such products
            flops -= work.in_float8 * (1 - 1 / FLOAT8_GAIN)
        seconds = flops / (work.stage.efficiency * hardware.rates.matmul)
        if work.stage is ENCODE_TEXT and work.from_graphs:
            seconds *= TEXT_FROM_GRAPHS
        if not hardware.unified:
            block = BLOCK_S * (1 - BLOCK_OF_TOKENS + BLOCK_OF_TOKENS * work.share)
            seconds += work.block_calls * block + exchange_seconds(work, hardware)
            launching = work.block_calls * LAUNCH_S + work.exchanges * LAUNCH_EXCHANGE_S
            seconds = max(seconds, 0.0 if work.from_graphs else launching)
        else:
            seconds += exchange_seconds(work, hardware)
        return seconds * self.corrections.get(work.stage.kind, 1.0)

    def exchanging(self, work: StageWork, hardware: Hardware) -> float:
        """How many of these seconds a stage exchanges tensors with other devices."""
        return exchange_seconds(work, hardware) * self.corrections.get(work.stage.kind, 1.0)

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


def exchange_seconds(work: StageWork, hardware: Hardware) -> float:
    """How long a stage exchanges tensors with other devices."""
    if hardware.peers is None:
        return 0.0
    return hardware.peers.exchange_seconds(work.exchanges, work.exchanged)


def sustained(hardware: Hardware) -> Hardware:
    """A machine with the rate that its link has over a whole request."""
    if hardware.unified:
        return hardware
    rates = hardware.rates
    return replace(hardware, rates=replace(rates, h2d=rates.h2d * LINK_SHARE))
