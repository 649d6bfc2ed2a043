"""What is to be computed: a request's sizes, without its contents."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from entracte.binding import bind
from entracte.models.transformer import Pass
from entracte.pipeline.conditions import PreparedImage
from entracte.pipeline.resolved import Prepared
from entracte.recipes import Phase, SamplerName
from entracte.request import Request
from entracte.sampling.denoiser import UNGUIDED, GuidancePlan
from entracte.versions import DEFAULTS


@dataclass(frozen=True, slots=True)
class PhaseLoad:
    """One phase's loop over noise levels.

    frames, height, width: of the latent grid. appended: tokens of images at later frames.
    evaluations: how often the sampler calls the denoiser, each time a sweep over the blocks.
    passes: how many guidance passes an evaluation makes, those that share blocks counted in part.
    rows_at_once: how many of them are computed together. images: how many are encoded for it.
    contexts: how many prompts it looks at.
    """

    name: str
    frames: int
    height: int
    width: int
    appended: int
    audio_tokens: int
    steps: int
    sampler: SamplerName
    evaluations: int
    guidance: GuidancePlan
    passes: float
    rows_at_once: int
    images: int
    contexts: int

    @property
    def grid_tokens(self) -> int:
        return self.frames * self.height * self.width

    @property
    def video_tokens(self) -> int:
        return self.grid_tokens + self.appended


@dataclass(frozen=True, slots=True)
class Workload:
    """One request.

    new_prompts: how many prompts have to be encoded, because no earlier request did.
    frames, height, width: of the video, in pixels.
    """

    phases: tuple[PhaseLoad, ...]
    new_prompts: int
    frames: int
    height: int
    width: int

    @property
    def audio_tokens(self) -> int:
        return self.phases[0].audio_tokens

    @classmethod
    def of(cls, prepared: Prepared, layers: int, new_prompts: int) -> "Workload":
        """A prepared request's, on a transformer of so many layers."""
        request = prepared.request
        phases = tuple(_phase_load(prepared, phase, layers) for phase in request.recipe.phases)
        return cls(phases, new_prompts, request.num_frames, request.height, request.width)

    @classmethod
    def of_sizes(
        cls,
        *,
        layers: int,
        pipeline: str = "two-stage",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        frame_rate: float | None = None,
        steps: int | None = None,
        images: int = 0,
        prompts: int | None = None,
        guidance_batch: int = 1,
        version: str = "2.3",
    ) -> "Workload":
        """What a request of these sizes is, with the default guidance; None is a default too.

        images: the first stands at the first frame, the others at later ones.
        prompts: how many have to be encoded (default: all that the pipeline looks at).
        Raises RequestError as a request does.
        """
        given: dict[str, Any] = {
            "prompt": "any",
            "pipeline": pipeline,
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "frame_rate": frame_rate,
            "num_inference_steps": steps,
            "guidance_batch": guidance_batch,
        }
        defaults = DEFAULTS[version]
        request = bind(Request(**given), defaults)
        blocks = (round(defaults.stg_depth * layers),)
        guidance = GuidancePlan(
            replace(request.video_guidance, stg_blocks=blocks),
            replace(request.audio_guidance, stg_blocks=blocks),
        )
        negative = request.recipe.guided and "unconditioned" in guidance.passes()
        looked_at = 2 if negative else 1
        prepared = Prepared(
            request=request,
            guidance=guidance,
            prompts=[torch.empty(0)] * looked_at,
            images=[PreparedImage(np.empty(0), number, 1.0) for number in range(images)],
            weight_sets=[],
            lent={},
        )
        return cls.of(prepared, layers, looked_at if prompts is None else prompts)


def _phase_load(prepared: Prepared, phase: Phase, layers: int) -> PhaseLoad:
    grid = prepared.grid(phase)
    guidance = prepared.guidance if phase.guided else UNGUIDED
    later = sum(image.frame > 0 for image in prepared.images)
    return PhaseLoad(
        name=phase.name,
        frames=grid.frames,
        height=grid.height,
        width=grid.width,
        appended=later * grid.frame_tokens,
        audio_tokens=prepared.request.audio_tokens,
        steps=len(prepared.sigmas(phase)) - 1,
        sampler=phase.sampler,
        evaluations=prepared.evaluations(phase),
        guidance=guidance,
        passes=sum(_share(each, layers) for each in guidance.passes().values()),
        rows_at_once=prepared.request.guidance_batch,
        images=len(prepared.images),
        contexts=len(prepared.prompts) if phase.guided else 1,
    )


def _share(evaluated: Pass, layers: int) -> float:
    """How much of the transformer a pass runs by itself, and not together with its twin."""
    shared = evaluated.first_skip or 0
    return (layers - shared) / layers
