"""A small two-stage pipeline under the device manager, timed by the simulated accelerator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entracte.machine.hardware import Hardware, Rates
from entracte.planner.costs import Costs
from entracte.planner.schedule_model import Sweeps, merge_seconds
from entracte.planner.work import StageWork
from entracte.residency import (
    BASE,
    Adapter,
    ComponentSpec,
    ConcurrentUse,
    DeviceManager,
    Factors,
    Residency,
    Sizes,
    TensorSource,
    WeightPhase,
    WeightSet,
    distinct,
    in_memory,
)
from entracte.residency.simulated import SimulatedAccelerator, SimulatedRates
from entracte.stages import Act, Stage

RANK = 8
SIDE = 64  # of a block's weight
MERGED = WeightSet((Adapter("distilled", 1.0),))


class Worker:
    """How long every block of a component works."""

    def __init__(self, accelerator: SimulatedAccelerator) -> None:
        self.accelerator = accelerator
        self.seconds = 0.0

    def __deepcopy__(self, memo: object) -> "Worker":
        return self


class Layer(nn.Module):
    def __init__(self, rows: int, worker: Worker | None) -> None:
        super().__init__()
        self.linear = nn.Linear(SIDE, rows, bias=False)
        self.worker = worker

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.linear.weight[0, 0]
        if self.worker is not None:
            self.worker.accelerator.work(self.worker.seconds)
        return x


class Parts(nn.Module):
    """Blocks that work, and something outside that works only where there are no blocks."""

    def __init__(self, blocks: int, worker: Worker, rest: int) -> None:
        super().__init__()
        self.rest = Layer(rest, None if blocks else worker)
        self.blocks = nn.ModuleList(Layer(SIDE, worker) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rest(x)
        for block in self.blocks:
            x = block(x)
        return x


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Sizes and times. A stage is (name, component, seconds), or (name, number of the phase)."""

    blocks: int
    hardware: Hardware
    phases: tuple[WeightPhase, ...]
    block_seconds: tuple[float, ...]
    others: Mapping[str, int]
    stages: Sequence[tuple[str, str | int, float]]

    def spec(self, name: str, blocks: int, worker: Worker) -> ComponentSpec:
        def build() -> Parts:
            with torch.device("meta"):
                return Parts(blocks, worker, 2 * SIDE).bfloat16()

        tensors = {
            key: torch.zeros(parameter.shape, dtype=torch.bfloat16)
            for key, parameter in build().named_parameters()
        }
        return ComponentSpec(
            name, build, {"base": TensorSource(tensors)}, "blocks" if blocks else None
        )

    def factors(self, _: str) -> dict[str, Factors]:
        names = [
            *(f"blocks.{number}.linear.weight" for number in range(self.blocks)),
            "rest.linear.weight",
        ]
        rows = [*[SIDE] * self.blocks, 2 * SIDE]
        return {
            name: Factors(
                torch.zeros(RANK, SIDE, dtype=torch.bfloat16),
                torch.zeros(out, RANK, dtype=torch.bfloat16),
            )
            for name, out in zip(names, rows, strict=True)
        }

    def costs(self) -> Costs:
        """What the planner knows of it."""
        block, rest = 2 * SIDE * SIDE, 4 * SIDE * SIDE
        factors = (*[4 * RANK * SIDE] * self.blocks, 2 * RANK * 3 * SIDE)
        sizes = {"transformer": Sizes((*[block] * self.blocks, rest), {"distilled": factors})}
        for name, blocks in self.others.items():
            sizes[name] = Sizes((*[block] * blocks, rest), {})
        sets = distinct(self.phases)
        loops = []
        for phase, seconds in zip(self.phases, self.block_seconds, strict=True):
            merge = outside = 0.0
            if phase.weights.adapters:
                flops = 2.0 * RANK * SIDE * SIDE
                merge = merge_seconds(block, factors[0], flops, self.hardware)
                outside = merge_seconds(rest, factors[-1], 2 * flops, self.hardware)
            loops.append(Sweeps(phase.sweeps, seconds, sets.index(phase.weights), merge, outside))
        stages = []
        for name, what, seconds in self.stages:
            if isinstance(what, int):
                total = self.phases[what].sweeps * self.blocks * self.block_seconds[what]
                stages.append((StageWork(Stage(name, Act.PREPARE), 0.0, 0, what), total))
            else:
                stages.append((StageWork(Stage(name, Act.PREPARE, uses=(what,)), 0.0, 0), seconds))
        return Costs(tuple(stages), tuple(loops), sizes, self.phases, self.hardware)

    @torch.inference_mode()
    def simulate(self, wanted: Residency, requests: int = 3) -> tuple[float, int, int, int]:
        """Seconds of the last of some requests, the most device memory of all, and the most device
        and host memory by the device manager's own plan.
        """
        rates = self.hardware.rates
        accelerator = SimulatedAccelerator(
            rates=SimulatedRates(
                bytes_in_per_second=rates.h2d,
                bytes_out_per_second=rates.d2h,
                bytes_within_per_second=rates.device_copy,
                flops_per_second=rates.merge,
                pageable_bytes_per_second=rates.pageable,
                disk_bytes_per_second=rates.disk,
            )
        )
        workers = {name: Worker(accelerator) for name in ("transformer", *self.others)}
        within = [at for at, stage in enumerate(self.stages) if isinstance(stage[1], int)]
        uses = [
            ConcurrentUse(frozenset([what]), within[0] <= at <= within[-1])
            for at, (_, what, _) in enumerate(self.stages)
            if isinstance(what, str)
        ]
        manager = DeviceManager(
            [
                self.spec(name, self.blocks if name == "transformer" else self.others[name], each)
                for name, each in workers.items()
            ],
            accelerator,
            wanted,
            adapters=in_memory(self.factors),
            concurrent_uses=uses,
        )
        zero, ended, began = torch.zeros((), dtype=torch.bfloat16), 0.0, 0.0
        for _ in range(requests):
            began = ended
            with manager.request(self.phases) as run:
                for _, what, seconds in self.stages:
                    if isinstance(what, int):
                        workers["transformer"].seconds = self.block_seconds[what]
                        with run.phase(what, Parts) as model:
                            for _ in range(self.phases[what].sweeps):
                                model(zero)
                                # As the engine does after every step and stage.
                                accelerator.compute.record().synchronize()
                    else:
                        workers[what].seconds = seconds / max(1, self.others[what])
                        with manager.borrow(what, Parts) as model:
                            model(zero)
                            accelerator.compute.record().synchronize()
            accelerator.compute.record().synchronize()
            ended = accelerator.seconds
        plan = manager.plan(self.phases)
        taken = ended - began
        return taken, accelerator.peak_device_bytes, plan.device_bytes, plan.host_bytes


def two_stage(
    blocks: int,
    hardware: Hardware,
    seconds: tuple[float, float],
    steps: tuple[int, int] = (6, 3),
    others: Mapping[str, int] | None = None,
    gap: float = 0.0,
    end: float = 1.0,
) -> Pipeline:
    """Text, a loop, a stage between, another loop, and decoding."""
    others = {"text": 3, "upsampler": 0, "vae": 0} if others is None else others
    return Pipeline(
        blocks,
        hardware,
        (WeightPhase(BASE, steps[0]), WeightPhase(MERGED, steps[1])),
        seconds,
        others,
        (
            ("encode text", "text", end / 2),
            ("denoise", 0, 0.0),
            ("upsample", "upsampler", gap),
            ("refine", 1, 0.0),
            ("decode video", "vae", end),
        ),
    )


def machine(link: float, merge: float = 1e9, disk: float = 1e9) -> Hardware:
    """A machine by the seconds that one block's copy takes; merges and reads by rates."""
    block = 2 * SIDE * SIDE
    rates = Rates(
        matmul=1e12,
        merge=merge,
        device_copy=1e12,
        h2d=block / link,
        d2h=block / link,
        pageable=block / link / 10,
        disk=disk,
    )
    return Hardware("simulated", 1 << 40, 1 << 40, rates)
