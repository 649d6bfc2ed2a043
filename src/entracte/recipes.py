"""Recipes: which phases a pipeline has, and the official defaults. Data, no control flow."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from entracte.sampling.guidance import Guidance
from entracte.stages import PHASES, PhaseStages

# Fixed noise levels: of the distilled checkpoint, and of the second act.
DISTILLED = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
REFINEMENT = (0.909375, 0.725, 0.421875, 0.0)

PipelineName = Literal["two-stage", "one-stage", "distilled"]

# `entracte.sampling.samplers` has the loops.
SamplerName = Literal["euler"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the pipeline that uses one weight set of the transformer.

    divisor: the video's height and width are divided by it.
    sigmas: fixed noise levels, or None for the shifted schedule of the requested steps.
    guided: whether guidance passes are made.
    distilled: how much of the distilled LoRA's given strength is merged in.
    sampler: the loop over the noise levels.
    """

    name: str
    divisor: int
    sigmas: tuple[float, ...] | None
    guided: bool
    distilled: float
    sampler: SamplerName = "euler"

    @property
    def stages(self) -> PhaseStages:
        """The stages that it goes through."""
        return PHASES[self.name]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pipeline.

    size_multiple: what height and width must be multiples of.
    audio_phase: the phase whose audio is decoded; later phases' audio only steers the video.
    """

    name: PipelineName
    phases: tuple[Phase, ...]
    audio_phase: int
    size_multiple: int
    height: int
    width: int

    def rendered(self, side: int) -> int:
        """The next side that can be rendered, from which `side` pixels are cut."""
        return -(-side // self.size_multiple) * self.size_multiple

    @property
    def guided(self) -> bool:
        return any(phase.guided for phase in self.phases)

    @property
    def upsamples(self) -> bool:
        return len(self.phases) > 1

    @property
    def uses_distilled_lora(self) -> bool:
        return any(phase.distilled for phase in self.phases)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="two-stage",
                phases=(
                    Phase("stage1", divisor=2, sigmas=None, guided=True, distilled=0.0),
                    Phase("stage2", divisor=1, sigmas=REFINEMENT, guided=False, distilled=1.0),
                ),
                audio_phase=0,
                size_multiple=64,
                height=1024,
                width=1536,
            ),
            Recipe(
                name="one-stage",
                phases=(Phase("stage1", divisor=1, sigmas=None, guided=True, distilled=0.0),),
                audio_phase=0,
                size_multiple=32,
                height=512,
                width=768,
            ),
            # The checkpoint itself is a distilled one, so nothing is merged.
            Recipe(
                name="distilled",
                phases=(
                    Phase("stage1", divisor=2, sigmas=DISTILLED, guided=False, distilled=0.0),
                    Phase("stage2", divisor=1, sigmas=REFINEMENT, guided=False, distilled=0.0),
                ),
                audio_phase=1,
                size_multiple=64,
                height=1024,
                width=1536,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request leaves open, for one version of the model.

    stg_depth: where self-attention is skipped, as a share of the transformer's depth.
    image_crf: the quality at which conditioning images are re-compressed.
    """

    num_frames: int
    frame_rate: float
    num_inference_steps: int
    seed: int
    video_guidance: Guidance
    audio_guidance: Guidance
    stg_depth: float
    image_crf: int
    negative_prompt: str


DEFAULTS: Mapping[str, Defaults] = MappingProxyType(
    {
        "2.3": Defaults(
            num_frames=121,
            frame_rate=24.0,
            num_inference_steps=30,
            seed=10,
            video_guidance=Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7),
            audio_guidance=Guidance(cfg=7.0, stg=1.0, modality=3.0, rescale=0.7),
            stg_depth=28 / 48,
            image_crf=33,
            negative_prompt=(
                "low quality, blurry, out of focus, grainy, pixelated, compression artifacts, "
                "flicker, jitter, frozen frame, washed-out colors, overexposed, underexposed, "
                "distorted face, deformed hands, extra fingers, extra limbs, warped objects, "
                "inconsistent motion, unreadable text, watermark, subtitles, logo, "
                "muffled sound, distorted voice, hiss, clipping, echo, out of sync"
            ),
        )
    }
)
