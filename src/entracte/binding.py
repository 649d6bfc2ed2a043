"""Binding: what a request leaves open takes the defaults of a model's version."""

from dataclasses import replace
from typing import Any

from entracte.conditions import ImageCondition
from entracte.errors import RequestError
from entracte.frame_rates import FrameRate
from entracte.recipes import Guidance, GuidanceOverrides
from entracte.request import Request
from entracte.request_fields import MAX_FRAMES, FrameCount, PixelCount, Seed
from entracte.sampling.lengths import audio_token_count, frame_count
from entracte.versions import DEFAULTS, Defaults


class BoundRequest(Request):
    """A request whose every value is settled: what was not given is a version's default.

    num_inference_steps: None only where the pipeline's steps are fixed. guidance_batch: None until
        it is known what computes the passes. Images have a crf.
    """

    negative_prompt: str
    height: PixelCount
    width: PixelCount
    num_frames: FrameCount
    frame_rate: FrameRate
    seed: Seed
    truncate_prompt: bool = False
    video_guidance: Guidance
    audio_guidance: Guidance

    @property
    def audio_tokens(self) -> int:
        return audio_token_count(self.num_frames, self.frame_rate)


def bind(request: Request, defaults: Defaults) -> BoundRequest:
    """A request with the defaults of a version for what it leaves open.

    Raises RequestError where they contradict what it gives.
    """
    of_recipe = defaults.recipes[request.pipeline]
    values: dict[str, Any] = {
        "negative_prompt": defaults.negative_prompt,
        "height": of_recipe.height,
        "width": of_recipe.width,
        "num_frames": defaults.num_frames,
        "frame_rate": defaults.frame_rate,
        "num_inference_steps": of_recipe.num_inference_steps,
        "seed": defaults.seed,
    }
    values |= {name: value for name, value in request if value is not None}
    values["conditions"] = tuple(
        _bind_image(each, defaults.image_crf) if isinstance(each, ImageCondition) else each
        for each in request.conditions
    )
    if request.seconds is not None:
        values |= {"num_frames": _frames(request.seconds, values["frame_rate"]), "seconds": None}
    for name, given, default in (
        ("video_guidance", request.video_guidance, of_recipe.video_guidance),
        ("audio_guidance", request.audio_guidance, of_recipe.audio_guidance),
    ):
        values[name] = _bind_guidance(given, default)
    return BoundRequest(**values)


def bind_to_model(request: Request, defaults: Defaults, layers: int) -> BoundRequest:
    """`bind`, with the blocks in which self-attention is skipped of a transformer of that depth.

    Raises RequestError, also for a block that the transformer does not have.
    """
    bound = bind(request, defaults)
    guidance = {
        f"{stream}_guidance": _with_blocks(given, stream, defaults, layers)
        for stream, given in (("video", bound.video_guidance), ("audio", bound.audio_guidance))
    }
    return bound.model_copy(update=guidance)


def require_possible(request: Request) -> None:
    """Raise RequestError for a request that contradicts the defaults of every version.

    So the first mistake is told before a model is opened, which may have to be downloaded.
    """
    errors = []
    for defaults in DEFAULTS.values():
        try:
            bind(request, defaults)
        except RequestError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _frames(seconds: float, frame_rate: float) -> int:
    frames = frame_count(seconds, frame_rate)
    if frames > MAX_FRAMES:
        raise RequestError(
            f"seconds: {seconds:g} at {frame_rate:g} frames a second are {frames:,} frames; at "
            f"most {MAX_FRAMES:,} can be made"
        )
    return frames


def _bind_image(image: ImageCondition, crf: int) -> ImageCondition:
    return image if image.crf is not None else image.model_copy(update={"crf": crf})


def _bind_guidance(given: Guidance | GuidanceOverrides | None, default: Guidance) -> Guidance:
    match given:
        case None:
            return default
        case Guidance():
            return given
        case GuidanceOverrides():
            return given.applied_to(default)


def _with_blocks(guidance: Guidance, stream: str, defaults: Defaults, layers: int) -> Guidance:
    blocks = guidance.stg_blocks
    if blocks is None:
        blocks = defaults.stg_blocks(layers)
    if any(block >= layers for block in blocks):
        raise RequestError(
            f"{stream}_guidance: stg_blocks has block {max(blocks)}; the transformer has blocks 0 "
            f"to {layers - 1}"
        )
    return replace(guidance, stg_blocks=blocks)
