"""The floor under the steps of a request."""

from dataclasses import dataclass

import torch

from entracte.checkpoints.sources import ModelSource
from entracte.models.transformer import TransformerConfig
from entracte.pipeline.resolve import resolve
from entracte.planner.workload import Workload, recipe_weights
from entracte.request import Request

from .floor import Evaluation, Floor, random_blocks
from .stopwatch import in_turns


@dataclass(frozen=True, slots=True)
class StepFloor:
    """The floor under a step of a stage, in seconds, and the shapes that it is of."""

    stage: str
    seconds: float
    of: Evaluation

    def __str__(self) -> str:
        count = len(self.of.passes)
        passes = f"{count} pass{'es' if count > 1 else ''}"
        return f"{self.of.video_tokens:,} tokens, {passes}"


def measure_floors(
    source: ModelSource, request: Request, device: torch.device, dtype: torch.dtype, repeats: int
) -> list[StepFloor]:
    """The floor under a step of every phase of a settled request; the phases take turns."""
    transformer = source.components["transformer"]
    config = TransformerConfig.from_header(transformer.config)
    weights = recipe_weights(request.recipe)
    resolved = resolve(request, source.version.defaults, config.layers, weights)
    load = Workload.of(resolved, resolved.prompts)
    shapes = {
        phase.phase.stages.loop.name: Evaluation(
            each.video_tokens,
            each.audio_tokens,
            tuple(each.guidance.passes().values()),
            each.rows_at_once,
        )
        for phase, each in zip(resolved.phases, load.phases, strict=True)
    }
    with torch.inference_mode():
        blocks = random_blocks(config, device, dtype)
        floors = {name: Floor(blocks, config, of) for name, of in shapes.items()}
        seconds = in_turns(floors, repeats, device)
    return [
        StepFloor(name, seconds[name] * each.evaluations / each.steps, shapes[name])
        for name, each in zip(shapes, load.phases, strict=True)
    ]
