"""How a request's phases are shared out over several devices: the quickest layout of each."""

from dataclasses import replace

from entracte.machine.hardware import Hardware
from entracte.parallel import ONE_RANK, Layout, Parallel, layouts

from .calibration import Calibration
from .transformer_work import TransformerMeter
from .work import loop_work
from .workload import PhaseLoad, Workload

# Latencies are compared in whole milliseconds; of equal layouts the one that exchanges least wins.
TICK = 1e-3


def share_out(
    load: Workload,
    transformer: TransformerMeter,
    hardware: Hardware,
    calibration: Calibration,
    parallel: Parallel = "auto",
    graphs: bool = True,
) -> tuple[Layout, ...]:
    """The layout of each phase, by the prediction of its loop with all weights at hand.

    graphs: blocks are run from captured graphs, where these are captured.
    """
    if hardware.devices == 1 or parallel == "off":
        return (ONE_RANK,) * len(load.phases)
    config = transformer.config
    found = layouts(hardware.devices, (config.video.heads, config.audio.heads))
    if parallel != "auto":
        found = found[:1] if parallel == "guidance" else found[-1:]

    def best(phase: PhaseLoad) -> Layout:
        def order(layout: Layout) -> tuple[int, int]:
            work = loop_work(phase, transformer, layout, exchanges_captured(hardware))
            work = replace(work, from_graphs=graphs and work.held > 0)
            seconds = calibration.seconds(work, hardware)
            return round(seconds / TICK), work.exchanged

        return min(found, key=order)

    return tuple(map(best, load.phases))


def exchanges_captured(hardware: Hardware) -> bool:
    """Whether blocks that exchange tensors can be run from graphs: through each other's memory."""
    return hardware.peers is not None and hardware.peers.direct
