"""Versions of LTX, and what each takes for what a request leaves open. Needs no torch.

How a model of a version is built is in `entracte.models.registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from entracte.recipes import Guidance, PipelineName


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request leaves open, for one version of the model.

    sizes: height and width in pixels, by pipeline.
    stg_depth: where self-attention is skipped, as a share of the transformer's depth.
    image_crf: the quality at which conditioning images are re-compressed.
    """

    sizes: Mapping[PipelineName, tuple[int, int]]
    num_frames: int
    frame_rate: float
    num_inference_steps: int
    seed: int
    video_guidance: Guidance
    audio_guidance: Guidance
    stg_depth: float
    image_crf: int
    negative_prompt: str

    def stg_blocks(self, layers: int) -> tuple[int, ...]:
        """The blocks of a transformer of so many layers in which self-attention is skipped."""
        return (round(self.stg_depth * layers),)


DEFAULTS_2_3 = Defaults(
    sizes=MappingProxyType(
        {"two-stage": (1024, 1536), "one-stage": (512, 768), "distilled": (1024, 1536)}
    ),
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

DEFAULTS: Mapping[str, Defaults] = MappingProxyType({"2.3": DEFAULTS_2_3})
