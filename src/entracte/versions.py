"""Versions of LTX, and what each takes for what a request leaves open. Needs no torch.

How a model of a version is built is in `entracte.models.registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from entracte.recipes import Guidance, Phase, PipelineName, Recipe, SamplerName


@dataclass(frozen=True, slots=True)
class RecipeDefaults:
    """What a request leaves open in one pipeline.

    height, width: in pixels. num_inference_steps: None where they are fixed.
    """

    height: int
    width: int
    num_inference_steps: int | None
    video_guidance: Guidance
    audio_guidance: Guidance


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request leaves open, for one version of the model.

    recipes: what differs by pipeline. samplers: of a pipeline's first phase, where it is another
        one than the recipe's.
    stg_depth: where self-attention is skipped, as a share of the transformer's depth.
    image_crf: the quality at which conditioning images are re-compressed.
    """

    recipes: Mapping[PipelineName, RecipeDefaults]
    num_frames: int
    frame_rate: float
    seed: int
    stg_depth: float
    image_crf: int
    negative_prompt: str
    samplers: Mapping[PipelineName, SamplerName] = field(default_factory=dict)

    def phases(self, recipe: Recipe) -> tuple[Phase, ...]:
        """A recipe's phases, with this version's samplers."""
        first, *later = recipe.phases
        return (replace(first, sampler=self.samplers.get(recipe.name, first.sampler)), *later)

    def stg_blocks(self, layers: int) -> tuple[int, ...]:
        """The blocks of a transformer of so many layers in which self-attention is skipped."""
        return (round(self.stg_depth * layers),)


VIDEO_GUIDANCE = Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7)
AUDIO_GUIDANCE = replace(VIDEO_GUIDANCE, cfg=7.0)

HQ = RecipeDefaults(
    height=1088,
    width=1920,
    num_inference_steps=15,
    video_guidance=Guidance(cfg=3.0, modality=3.0, rescale=0.45),
    audio_guidance=Guidance(cfg=7.0, modality=3.0, rescale=1.0),
)


def _recipes(steps: int) -> Mapping[PipelineName, RecipeDefaults]:
    """steps: of guided stages."""
    two_stage = RecipeDefaults(1024, 1536, steps, VIDEO_GUIDANCE, AUDIO_GUIDANCE)
    one_stage = replace(two_stage, height=512, width=768)
    return MappingProxyType(
        {
            "two-stage": two_stage,
            "hq": HQ,
            "one-stage": one_stage,
            "keyframes": two_stage,
            # What is given is not guided.
            "audio-to-video": replace(two_stage, audio_guidance=Guidance()),
            # Without a size, it is the source's.
            "retake": replace(two_stage, num_inference_steps=None),
            "retake-guided": replace(two_stage, num_inference_steps=40),
            "extend": replace(two_stage, num_inference_steps=None),
            "ic-lora": replace(two_stage, num_inference_steps=None),
            "ic-lora-one-stage": replace(one_stage, num_inference_steps=None),
            "distilled": replace(two_stage, num_inference_steps=None),
            "distilled-one-stage": replace(one_stage, num_inference_steps=None),
        }
    )


DEFAULTS_2_3 = Defaults(
    recipes=_recipes(steps=30),
    num_frames=121,
    frame_rate=24.0,
    seed=10,
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

DEFAULTS_2_0 = replace(DEFAULTS_2_3, recipes=_recipes(steps=40), stg_depth=29 / 48)

DEFAULTS_2_5 = replace(
    DEFAULTS_2_3,
    image_crf=18,
    samplers=MappingProxyType({"distilled": "ancestral-euler"}),
)

# From the oldest on.
DEFAULTS: Mapping[str, Defaults] = MappingProxyType(
    {"2.0": DEFAULTS_2_0, "2.3": DEFAULTS_2_3, "2.5": DEFAULTS_2_5}
)
