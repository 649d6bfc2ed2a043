"""A request's guidance as arguments of diffusers' pipeline, or the reason why it cannot be."""

from collections.abc import Callable
from typing import Any

from entracte.binding import BoundRequest
from entracte.errors import RequestError
from entracte.recipes import Guidance
from entracte.request import Request

# The pipeline's prefix of a stream's arguments, and what they are called after it.
PREFIXES = ("", "audio_")
SCALES: tuple[tuple[str, Callable[[Guidance], float]], ...] = (
    ("guidance_scale", lambda guidance: guidance.cfg),
    ("stg_scale", lambda guidance: guidance.stg),
    ("modality_scale", lambda guidance: guidance.modality),
    ("guidance_rescale", lambda guidance: guidance.rescale),
)

UNGUIDED = Guidance()


def scale_arguments(video: Guidance, audio: Guidance) -> dict[str, Any]:
    """Every guidance scale of both streams."""
    return {
        f"{prefix}{name}": scale(stream)
        for prefix, stream in zip(PREFIXES, (video, audio), strict=True)
        for name, scale in SCALES
    }


def guidance_arguments(request: BoundRequest) -> dict[str, Any]:
    """The arguments of a guided stage of a resolved request.

    Raises RequestError for guidance that the pipeline computes otherwise, or not at all.
    """
    video, audio = request.video_guidance, request.audio_guidance
    for name, scale in SCALES:
        if not scale(audio) and scale(video):
            raise RequestError(
                f"audio_guidance: diffusers takes a {name} of 0 to mean the video's, {scale(video)}"
            )
    for name, off, scales in (
        ("cfg", 1, (video.cfg, audio.cfg)),
        ("stg", 0, (video.stg, audio.stg)),
        ("modality", 1, (video.modality, audio.modality)),
    ):
        if max(scales) <= off and min(scales) < off:
            raise RequestError(f"guidance: diffusers leaves {name} out unless it is above {off}")
    skipped, of_audio = list(video.stg_blocks or ()), list(audio.stg_blocks or ())
    if max(video.stg, audio.stg) > 0 and (skipped != of_audio or not skipped):
        raise RequestError(
            "guidance: diffusers skips the same stg_blocks for video and audio, at least one; "
            f"asked for are {skipped} and {of_audio}"
        )
    return scale_arguments(video, audio) | {"spatio_temporal_guidance_blocks": skipped}


def require_comparable(request: Request) -> None:
    """Raise RequestError for what diffusers does not do here as this engine does.

    It makes two-stage videos with the model's own weights, from text or from one picture.
    """
    if request.pipeline != "two-stage":
        raise RequestError(f"pipeline: diffusers runs two-stage here, not {request.pipeline}")
    if (
        any(image.frame or image.strength != 1 for image in request.images[:1])
        or request.images[1:]
    ):
        raise RequestError(
            "images: diffusers takes one here, which is the first frame at full strength"
        )
    if request.loras:
        raise RequestError("loras: diffusers runs with the distilled LoRA alone here")
