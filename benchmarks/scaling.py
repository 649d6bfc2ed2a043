"""How one video is predicted to scale over the GPUs of a machine, and what limits it.

    python benchmarks/scaling.py [--cards h200 rtx-4090 …] [--gpus 1 2 4 8]

By the planner, without a GPU. Of the seconds that several GPUs take beyond an even share of what
one takes, *repeated* are those in which each computes the same (text, audio, and passes that do not
divide), *blocks* those that a block takes whatever its size, *exchange* those of exchanges, *waits*
those for weights, and *one GPU* those of stages that are not shared out.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from entracte.machine.cards import card
from entracte.planner.calibration import BLOCK_OF_TOKENS, BLOCK_S, Calibration
from entracte.planner.costs import Costs, costs
from entracte.planner.decision import Decision, decide, describe
from entracte.planner.forecast import weight_phases
from entracte.planner.limits import limits_of
from entracte.planner.model_profile import ModelFigures, published
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.workload import Workload
from entracte.residency import AUTO, Residency
from entracte.units import GIB

VIDEOS = {
    "seed": {"height": 512, "width": 768},
    "seed, image": {"height": 512, "width": 768, "images": 1},
    "hd": {"height": 1024, "width": 1536},
}
CARDS = ("h200", "h100-80gb", "a100-80gb", "rtx-4090")
HEADS = (
    "GPUs",
    "plan",
    "stage 1, 2",
    "denoise",
    "refine",
    "all, s",
    "times",
    "GB",
    "repeated",
    "blocks",
    "exchange",
    "waits",
    "one GPU",
)


@dataclass(frozen=True)
class Planned:
    """A request on so many GPUs."""

    gpus: int
    costs: Costs
    decision: Decision

    @property
    def seconds(self) -> float:
        return self.decision.chosen.prediction.latency_s

    @property
    def waits(self) -> float:
        p = self.decision.chosen.prediction
        return p.stall_s + p.switch_s

    def loops(self, exchanging: bool) -> float:
        """Seconds of the loops without waits, or what they exchange of these."""
        pairs = zip(self.costs.stages, self.costs.exchanging, strict=True)
        loops = [each for each in pairs if each[0][0].phase is not None]
        return sum(e if exchanging else seconds for (_, seconds), e in loops)


def plan(
    model: ModelFigures, meter: TransformerMeter, load: Workload, name: str, n: int
) -> Planned:
    hardware, wanted = card(name, 256 * GIB, n), Residency(AUTO)
    phases = weight_phases("two-stage", load, model)
    c = costs(model, load, phases, hardware, Calibration(), meter)
    return Planned(n, c, decide(c, wanted, limits_of(hardware, wanted)))


def row(one: Planned, several: Planned) -> Sequence[str]:
    n, p = several.gpus, several.decision.chosen.prediction
    stages = {stage.name: stage.seconds for stage in p.stages}
    calls = sum(stage.block_calls for stage, _ in several.costs.stages)
    exchange = several.loops(exchanging=True)
    beyond = several.loops(exchanging=False) - one.loops(exchanging=False) / n - exchange
    blocks = min(beyond, calls * BLOCK_S * (1 - BLOCK_OF_TOKENS) * (1 - 1 / n))
    others = [
        c.computing - each.loops(exchanging=False) for each in (one, several) for c in [each.costs]
    ]
    lost = (
        beyond - blocks,
        blocks,
        exchange,
        several.waits - one.waits / n,
        others[1] - others[0] / n,
    )
    return (
        str(n),
        describe(p),
        ", ".join(map(str, several.decision.layouts)),
        f"{stages['denoise']:.2f}",
        f"{stages['refine']:.2f}",
        f"{p.latency_s:.2f}",
        f"{one.seconds / several.seconds:.2f}",
        f"{p.peak_device_bytes / 1e9:.1f}",
        *(f"{each:.2f}" if n > 1 else "" for each in lost),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", nargs="+", default=CARDS)
    parser.add_argument("--gpus", nargs="+", type=int, default=(1, 2, 4, 8))
    options = parser.parse_args()
    model = published("ltx-2.3")
    meter = TransformerMeter.of(model)
    for name in options.cards:
        for video, sizes in VIDEOS.items():
            load = Workload.of_sizes(
                layers=model.transformer.layers,
                on_gpu=True,
                defaults=model.version.defaults,
                **sizes,
            )
            one = plan(model, meter, load, name, 1)
            print(f"\n### {name}, {video}\n")
            print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
            for n in options.gpus:
                several = one if n == 1 else plan(model, meter, load, name, n)
                print(f"| {' | '.join(row(one, several))} |")


if __name__ == "__main__":
    main()
