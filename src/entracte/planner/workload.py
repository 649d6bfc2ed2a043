"""What is to be computed: a request's sizes, without its contents."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from entracte.conditions import (
    Condition,
    ControlVideo,
    ExtendedVideo,
    ImageCondition,
    SoundCondition,
    SourceVideo,
)
from entracte.models import mel
from entracte.models.transformer import Pass
from entracte.pipeline.given import MORE_SOUND
from entracte.pipeline.references import Reference
from entracte.pipeline.resolve import resolve
from entracte.pipeline.resolved import RequestWeights, ResolvedPhase, ResolvedRequest
from entracte.recipes import RECIPES, Recipe, SamplerName
from entracte.request import LoraSpec, Request
from entracte.residency import Adapter, WeightSet
from entracte.sampling.denoiser import GuidancePlan
from entracte.versions import DEFAULTS_2_3, Defaults

from .model_profile import DISTILLED

# What a request of no more than sizes is made from, by the kind that its pipeline needs.
EXAMPLES: Mapping[str, Condition] = MappingProxyType(
    {
        "sound": SoundCondition("any"),
        "source": SourceVideo("any", 0, 1),
        "extend": ExtendedVideo("any", 1),
        "control": ControlVideo("any"),
    }
)


@dataclass(frozen=True, slots=True)
class PhaseLoad:
    """One phase's loop over noise levels.

    frames, height, width: of the latent grid. appended: tokens of images at later frames.
    references: the control videos, whose tokens follow those.
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
    references: tuple[Reference, ...] = ()

    @property
    def video_tokens(self) -> int:
        own = self.frames * self.height * self.width
        return own + self.appended + sum(each.grid.tokens for each in self.references)


@dataclass(frozen=True, slots=True)
class SeenVideo:
    """A video that is encoded, by its latents. tiled: whether in tiles."""

    frames: int
    height: int
    width: int
    tiled: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """One request.

    new_prompts: how many prompts have to be encoded, because no earlier request did.
    frames, height, width: of the video, in pixels.
    heard: frames of the mel spectrogram of a sound that is given; 0 where there is none.
    seen: videos that are given, in the order in which they are encoded. decodes_sound: whether the
    sound is made.
    """

    phases: tuple[PhaseLoad, ...]
    new_prompts: int
    frames: int
    height: int
    width: int
    heard: int = 0
    seen: tuple[SeenVideo, ...] = ()
    decodes_sound: bool = True

    @property
    def audio_tokens(self) -> int:
        return self.phases[0].audio_tokens

    @classmethod
    def of(cls, resolved: ResolvedRequest, new_prompts: int) -> "Workload":
        """A resolved request's."""
        request = resolved.request
        phases = tuple(_phase_load(resolved, phase) for phase in resolved.phases)
        seconds = float(request.num_frames / request.frame_rate)
        seconds += MORE_SOUND if request.recipe.takes_sound else 0.0
        hears = request.recipe.takes_sound or request.recipe.takes_video
        return cls(
            phases,
            new_prompts,
            request.num_frames,
            request.height,
            request.width,
            heard=math.ceil(seconds * mel.RATE / mel.HOP) + 1 if hears else 0,
            seen=_seen(resolved),
            decodes_sound=not request.recipe.takes_sound,
        )

    @classmethod
    def of_sizes(
        cls,
        *,
        layers: int,
        pipeline: str = "two-stage",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        size: str | None = None,
        seconds: float | None = None,
        frame_rate: float | None = None,
        steps: int | None = None,
        images: int = 0,
        prompts: int | None = None,
        guidance_batch: int | None = None,
        on_gpu: bool = False,
        defaults: Defaults = DEFAULTS_2_3,
    ) -> "Workload":
        """What a request of these sizes is, with the default guidance; None is a default too.

        size, seconds: short for other fields, as in a `Request`.
        images: the first stands at the first frame, the others at later ones.
        prompts: how many have to be encoded (default: all that the pipeline looks at).
        on_gpu: whether guidance passes are computed together where `guidance_batch` is None.
        defaults: of the model's version.
        Raises RequestError as a request does.
        """
        given: dict[str, Any] = {
            "prompt": "any",
            "pipeline": pipeline,
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "size": size,
            "seconds": seconds,
            "frame_rate": frame_rate,
            "num_inference_steps": steps,
            "guidance_batch": guidance_batch,
            "images": tuple(ImageCondition("any", frame=number) for number in range(images)),
        }
        needs = RECIPES[pipeline].needs
        if needs is not None:
            given["conditions"] = (EXAMPLES[needs],)
            given["loras"] = (LoraSpec("any"),) if needs == "control" else ()
        request = Request(**given)
        resolved = resolve(request, defaults, layers, recipe_weights(request.recipe), on_gpu)
        return cls.of(resolved, resolved.prompts if prompts is None else prompts)


def recipe_weights(recipe: Recipe) -> RequestWeights:
    """A recipe's weights without LoRAs of a request."""
    adapters = (
        (Adapter(DISTILLED, phase.distilled),) if phase.distilled else () for phase in recipe.phases
    )
    return RequestWeights(tuple(map(WeightSet, adapters)), lent={}, notices=())


def _seen(resolved: ResolvedRequest) -> tuple[SeenVideo, ...]:
    first = resolved.phases[0]
    grids = [(first.grid, True)] if resolved.request.recipe.takes_video else []
    grids += [(each.grid, False) for each in first.references]
    return tuple(SeenVideo(g.frames, g.height, g.width, tiled) for g, tiled in grids)


def _phase_load(resolved: ResolvedRequest, phase: ResolvedPhase) -> PhaseLoad:
    grid, request = phase.grid, resolved.request
    passes = phase.guidance.passes().values()
    return PhaseLoad(
        name=phase.phase.name,
        frames=grid.frames,
        height=grid.height,
        width=grid.width,
        appended=len(resolved.appended_images) * grid.frame_tokens,
        audio_tokens=request.audio_tokens,
        steps=phase.steps,
        sampler=phase.phase.sampler,
        evaluations=phase.evaluations,
        guidance=phase.guidance,
        passes=sum(_share(each, resolved.layers) for each in passes),
        rows_at_once=phase.rows_at_once,
        images=len(request.images),
        contexts=phase.contexts,
        references=phase.references,
    )


def _share(evaluated: Pass, layers: int) -> float:
    """How much of the transformer a pass runs by itself, and not together with its twin."""
    shared = evaluated.first_skip or 0
    return (layers - shared) / layers
