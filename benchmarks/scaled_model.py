"""The full-size transformer's weights scaled down evenly, on a simulated accelerator.

Every unit (one block, or all that is outside the blocks) is one linear whose weight, bias and LoRA
factors have the unit's bytes divided by `SCALE`. The accelerator's bandwidths are divided by the
same number, so simulated seconds are those of the full size, and bytes times `SCALE` are too.
"""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isqrt, prod
from pathlib import Path

import torch
from torch import Tensor, nn

from entracte.residency import (
    BASE,
    Adapter,
    ComponentSpec,
    DeviceManager,
    Factors,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
    in_memory,
)
from entracte.residency.simulated import SimulatedAccelerator, SimulatedRates, Span

SIZES = Path(__file__).parent.parent / "tests" / "data" / "ltx-2.3-full.json.gz"
PREFIX, CONNECTORS = "model.diffusion_model.", "embeddings_connector."
BLOCKS = 48
LORA_RANK = 384
SCALE = 1024
# The rank of all scaled factors. With one rank the arithmetic of a merge is in proportion to its
# bytes, as it is at the full size, where all large factors have rank 384.
RANK = 56

MERGED = WeightSet((Adapter("distilled", 1.0),))
STEPS, PASSES, REFINEMENTS = 30, 4, 3
UPSAMPLING, DECODING = 0.011, 0.256
PHASES = (WeightPhase(BASE, STEPS), WeightPhase(MERGED, REFINEMENTS))
FLOPS_PER_TOKEN = 28e9


@dataclass(frozen=True, slots=True)
class UnitSize:
    """A unit of the full size: bytes of all its tensors, of its linears' weights, of its LoRA, and
    the floating-point operations of merging it.
    """

    nbytes: int
    linears: int
    lora: int
    merge_flops: int


@cache
def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """The transformer's tensors, by their names in it."""
    listed = json.loads(gzip.decompress(SIZES.read_bytes()))["tensors"]
    return {
        name.removeprefix(PREFIX): tuple(shape)
        for name, shape in listed.items()
        if name.startswith(PREFIX) and CONNECTORS not in name
    }


@cache
def full_size() -> tuple[UnitSize, UnitSize]:
    """A block, and what is outside the blocks, in bfloat16."""
    inside = re.compile(r"transformer_blocks\.\d+\.")
    shapes = tensor_shapes()
    first = {n: s for n, s in shapes.items() if n.startswith("transformer_blocks.0.")}
    rest = {name: shape for name, shape in shapes.items() if not inside.match(name)}
    return _unit(first), _unit(rest)


def _unit(shapes: Mapping[str, tuple[int, ...]]) -> UnitSize:
    linears = [s for name, s in shapes.items() if name.endswith(".weight") and len(s) == 2]
    ranked = [(min(LORA_RANK, *shape), shape) for shape in linears]
    return UnitSize(
        nbytes=sum(2 * prod(shape) for shape in shapes.values()),
        linears=sum(2 * prod(shape) for shape in linears),
        lora=sum(2 * rank * sum(shape) for rank, shape in ranked),
        merge_flops=sum(2 * rank * prod(shape) for rank, shape in ranked),
    )


def scaled_shape(unit: UnitSize) -> tuple[int, int]:
    """The sides of a weight that has the unit's bytes, and factors of rank `RANK` of its LoRA's."""
    area, total = unit.linears / 2 / SCALE, unit.lora / 2 / SCALE / RANK
    # The bias and rounding up to the alignment are bytes too, but fewer than a thousandth.
    long = (total + isqrt(round(max(0.0, total * total - 4 * area)))) / 2
    return round(long), round(area / round(long))


@dataclass(frozen=True, slots=True)
class Card:
    """A device: gigabytes of memory, and its limits per second, as they can be had in practice."""

    name: str
    memory: int
    bandwidth: float
    flops: float
    link: float

    def rates(self) -> SimulatedRates:
        """Divided by the scale.

        Merges: the scaled model takes fewer operations a byte than the full-size one (its rank is
        56 where that has 384), so arithmetic is divided by more than bytes are: by as much as makes
        the merge of all units take the seconds of its 14.6 TFLOP.
        """
        block, rest = full_size()
        flops = BLOCKS * block.merge_flops + rest.merge_flops
        scaled = 2 * RANK * (BLOCKS * prod(scaled_shape(block)) + prod(scaled_shape(rest)))
        return SimulatedRates(
            bytes_in_per_second=self.link / SCALE,
            bytes_out_per_second=self.link / SCALE,
            bytes_within_per_second=self.bandwidth / SCALE,
            flops_per_second=self.flops * scaled / flops,
            pageable_bytes_per_second=2.8e9 / SCALE,
            disk_bytes_per_second=7e9 / SCALE,
        )

    def seconds_per_block(self, tokens: int, passes: int) -> float:
        """Of compute: the linears at 0.8 of the rate of matrix products; no attention."""
        return FLOPS_PER_TOKEN * tokens * passes / BLOCKS / (0.8 * self.flops)


class Work:
    """How long a block computes, and on what."""

    def __init__(self, accelerator: SimulatedAccelerator) -> None:
        self.accelerator = accelerator
        self.seconds = 0.0

    def do(self) -> None:
        self.accelerator.work(self.seconds)

    def __deepcopy__(self, memo: object) -> "Work":
        return self  # blocks are copied; they go on working on the same device


class Block(nn.Module):
    """Reads its weight, and takes its time."""

    def __init__(self, shape: tuple[int, int], work: Work | None) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[1], shape[0])
        self.work = work

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.linear.weight[0, 0]
        if self.work is not None:
            self.work.do()
        return x


class Model(nn.Module):
    """Blocks, and all that is outside them, which takes no time."""

    def __init__(self, blocks: int, work: Work) -> None:
        super().__init__()
        block, rest = map(scaled_shape, full_size())
        self.rest = Block(rest, None)
        self.blocks = nn.ModuleList(Block(block, work) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rest(x)
        for block in self.blocks:
            x = block(x)
        return x


@dataclass(frozen=True, slots=True)
class Timeline:
    """One request, in simulated seconds; it began when the one before had been decoded.

    stages: the spans of work in both loops, block by block. compute: of both loops.
    """

    began: float
    stages: tuple[list[Span], list[Span]]
    decoded: Span
    compute: tuple[float, float]

    @property
    def stalls(self) -> tuple[float, float]:
        """In each loop, and before the first: from end to end, less the compute.

        The second is counted from its first work; what is before that is the switch.
        """
        first, second = self.stages
        return (
            first[-1].end - self.began - self.compute[0],
            second[-1].end - second[0].start - self.compute[1],
        )

    @property
    def switch(self) -> float:
        """From the first loop's last work to the second one's first, less the upsampling."""
        return self.stages[1][0].start - self.stages[0][-1].end - UPSAMPLING

    @property
    def seconds(self) -> float:
        return self.decoded.end - self.began


class Simulation:
    """A manager of the scaled model on a card's simulation; every request is a two-stage one.

    tokens: of video, in both stages.
    """

    def __init__(
        self, card: Card, wanted: Residency, tokens: tuple[int, int], blocks: int = BLOCKS
    ) -> None:
        self.accelerator = SimulatedAccelerator(rates=card.rates(), keep_log=True)
        self.seconds_per_block = (
            card.seconds_per_block(tokens[0], PASSES),
            card.seconds_per_block(tokens[1], 1),
        )
        self._work = Work(self.accelerator)
        self._blocks = blocks
        self._decoded = 0.0
        self.manager = DeviceManager(
            [scaled_spec(self._work, blocks)],
            self.accelerator,
            wanted,
            adapters=in_memory(lambda _: scaled_factors(blocks)),
        )

    @torch.inference_mode()
    def request(self) -> Timeline:
        """One request, from the end of the one before to the end of its decoding."""
        accelerator, began = self.accelerator, self._decoded
        accelerator.log.clear()
        with self.manager.request(PHASES) as run:
            for index, (phase, seconds) in enumerate(
                zip(PHASES, self.seconds_per_block, strict=True)
            ):
                self._work.seconds = seconds
                with run.phase(index, Model) as model:
                    for _ in range(phase.sweeps):
                        model(torch.zeros((), dtype=torch.bfloat16))
                accelerator.work(DECODING if index else UPSAMPLING)
        accelerator.compute.record().synchronize()  # the video is there
        *work, decoded = [span for span in accelerator.log if span.what == "work"]
        self._decoded = decoded.end
        stage_1 = PHASES[0].sweeps * self._blocks
        compute = [
            seconds * self._blocks * phase.sweeps
            for seconds, phase in zip(self.seconds_per_block, PHASES, strict=True)
        ]
        stages = (work[:stage_1], work[stage_1 + 1 :])
        return Timeline(began, stages, decoded, (compute[0], compute[1]))


def scaled_spec(work: Work, blocks: int = BLOCKS) -> ComponentSpec:
    def build() -> Model:
        with torch.device("meta"):
            return Model(blocks, work).bfloat16()

    tensors = {
        name: torch.zeros(parameter.shape, dtype=torch.bfloat16)
        for name, parameter in build().named_parameters()
    }
    return ComponentSpec("transformer", build, {"base": TensorSource(tensors)}, "blocks")


def scaled_factors(blocks: int = BLOCKS) -> dict[str, Factors]:
    block, rest = map(scaled_shape, full_size())
    shapes = {f"blocks.{number}.linear": block for number in range(blocks)}
    return {
        f"{name}.weight": Factors(
            torch.zeros(RANK, shape[1], dtype=torch.bfloat16),
            torch.zeros(shape[0], RANK, dtype=torch.bfloat16),
        )
        for name, shape in {**shapes, "rest.linear": rest}.items()
    }


class Branch(nn.Module):
    """A part of `Skeleton`. Called, it reads a number of its memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x + next(self.parameters()).flatten()[0]


class Skeleton(nn.Module):
    """The full-size transformer's 4,186 tensors by name, every long side divided by `divisor`."""

    def __init__(self, blocks: int = BLOCKS, divisor: int = 64) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(Branch() for _ in range(blocks))
        shapes = tensor_shapes()
        for name, shape in shapes.items():
            parts = name.split(".")
            if parts[0] == "transformer_blocks" and int(parts[1]) >= blocks:
                continue
            small = tuple(side // divisor if side > divisor else min(side, 8) for side in shape)
            owner: nn.Module = self
            for number, part in enumerate(parts[:-1]):
                if part not in owner._modules:
                    path = ".".join(parts[: number + 1])
                    weight = shapes.get(f"{path}.weight", ())
                    is_linear = len(weight) == 2
                    owner.add_module(part, nn.Linear(1, 1) if is_linear else Branch())
                owner = owner.get_submodule(part)
            owner.register_parameter(parts[-1], nn.Parameter(torch.empty(small), False))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x)
        return x


def skeleton_spec(blocks: int = BLOCKS) -> ComponentSpec:
    def build() -> Skeleton:
        with torch.device("meta"):
            return Skeleton(blocks).bfloat16()

    tensors = {
        name: torch.zeros(parameter.shape, dtype=torch.bfloat16)
        for name, parameter in build().named_parameters()
    }
    return ComponentSpec(
        "transformer", build, {"base": TensorSource(tensors)}, "transformer_blocks"
    )


def skeleton_factors(blocks: int = BLOCKS, rank: int = 6) -> dict[str, Factors]:
    """Of every linear."""
    with torch.device("meta"):
        skeleton = Skeleton(blocks)
    found = {}
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.Linear):
            outputs, inputs = module.weight.shape
            r = min(rank, inputs, outputs)
            found[f"{name}.weight"] = Factors(
                torch.zeros(r, inputs, dtype=torch.bfloat16),
                torch.zeros(outputs, r, dtype=torch.bfloat16),
            )
    return found
