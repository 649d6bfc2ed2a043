"""A client's request, resolved to what the model can do."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entracte.binding import bind_to_model
from entracte.checkpoints.model_header import ModelHeader
from entracte.conditions import ImageCondition
from entracte.config.serve import ServeSettings
from entracte.errors import RequestError
from entracte.recipes import RECIPES
from entracte.request import LoraSpec, Request
from entracte.request_fields import (
    GuidanceFields,
    RequestFields,
    arguments_from,
    http_name,
    values_from,
)
from entracte.sampling.lengths import frame_count

from .errors import RequestRefused, UnknownModel
from .fields import LoraField, VideoFields

FIELDS = (*RequestFields.model_fields, *GuidanceFields.model_fields)

# What HTTP clients call those of a request's fields that are no fields of theirs.
PARAMS: Mapping[str, str] = {
    "height": "size",
    "width": "size",
    "output_height": "size",
    "output_width": "size",
    "video_guidance": "video_cfg_guidance_scale",
    "audio_guidance": "audio_cfg_guidance_scale",
}

# Fields that are not kept, or not as they come.
NOT_KEPT = {"prompt", "model", "size", "width", "height", "seconds", "guidance_scale", "loras"}
NOT_KEPT |= {"images", "input_reference", "webhook_url"}

# Fields for which the service has a default of its own, or none.
OWN_DEFAULTS = {"prompt", "pipeline", "width", "height", "num_frames", "seed"}


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that can be carried out.

    settings: the fields to ask for the same again. size: of the file, `WxH`. render_size: of what
    is rendered, of which the file is the centre.
    """

    prompt: str
    model: str
    settings: dict[str, Any]

    @property
    def size(self) -> str:
        size: str = self.settings["size"]
        return size

    @property
    def seconds(self) -> str:
        seconds: str = self.settings["seconds"]
        return seconds

    @property
    def render_size(self) -> tuple[int, int]:
        return render_size(self.settings)


def resolve(
    fields: VideoFields, settings: ServeSettings, model: ModelHeader, loras: Mapping[str, Path]
) -> Submission:
    """A client's request with what it leaves open filled in.

    model: the one that is served. loras: paths by name.
    Raises RequestRefused, naming the field, for what cannot be made or is not allowed here.
    """
    model_name = fields.model or settings.model_name[0]
    if model_name not in settings.model_name:
        raise UnknownModel(f"There is no model {model_name[:100]!r}.", "model", "model_not_found")
    for name, words in (("prompt", fields.prompt), ("negative_prompt", fields.negative_prompt)):
        if words is not None and len(words) > settings.max_prompt_chars:
            limit = settings.max_prompt_chars
            raise RequestRefused(f"{name} has over {limit:,} characters.", name, "too_long")
    defaults = model.defaults
    pipeline = fields.pipeline or settings.pipeline
    width, height = _size(fields, settings)
    fps = fields.frame_rate or defaults.frame_rate
    frames = fields.num_frames
    if frames is None:
        seconds = settings.default_seconds if fields.seconds is None else fields.seconds
        frames = frame_count(seconds, fps)
    else:
        seconds = round(frames / fps, 2)
    _require_length(frames, fps, settings)
    given = fields.model_dump(exclude=NOT_KEPT, exclude_none=True, by_alias=True)
    if fields.guidance_scale is not None:
        given.setdefault("video_cfg_guidance_scale", fields.guidance_scale)
    usual: dict[str, Any] = {
        "num_frames": frames,
        "fps": fps,
        "seed": secrets.randbelow(2**31),
        "pipeline": pipeline,
        "negative_prompt": defaults.negative_prompt,
    }
    steps = defaults.recipes[pipeline].num_inference_steps
    if steps is not None:
        usual["num_inference_steps"] = steps
    found = {"size": f"{width}x{height}", "seconds": f"{seconds:g}"} | usual | given
    _require_steps(found, settings)
    _require_loras(fields.loras or (), settings)
    if fields.loras:
        found["loras"] = [
            lora.model_dump(exclude=set() if lora.partial else {"partial"}) for lora in fields.loras
        ]
    submission = Submission(fields.prompt, model_name, found)
    _check(submission, settings, model, loras)
    return submission


def render_size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height that are rendered: the next that the pipeline can."""
    recipe = RECIPES[settings["pipeline"]]
    width, height = _pixels(settings["size"])
    return recipe.rendered(width), recipe.rendered(height)


def request_of(
    prompt: str,
    settings: Mapping[str, Any],
    loras: Mapping[str, Path],
    images: Sequence[Mapping[str, Any]] = (),
) -> Request:
    """The request that settings stand for.

    images: `{path, frame, strength, crf}`. Raises RequestRefused for a LoRA that there is not, and
    RequestError for values that no request may have.
    """
    width, height = _pixels(settings["size"])
    rendered = render_size(settings)
    values = {name: settings.get(http_name(name)) for name in FIELDS}
    values |= {"prompt": prompt, "width": rendered[0], "height": rendered[1]}
    arguments = arguments_from(values) | {
        "images": tuple(ImageCondition(**image) for image in images),
        "loras": tuple(_lora(each, loras) for each in settings.get("loras", ())),
    }
    if rendered != (width, height):
        arguments |= {"output_width": width, "output_height": height}
    return Request(**arguments)


def usual_request(settings: ServeSettings, model: ModelHeader) -> Request:
    """The request that leaves everything open; raises RequestRefused."""
    submission = resolve(VideoFields(prompt="Anything"), settings, model, {})
    return request_of(submission.prompt, submission.settings, {})


def default_fields(settings: ServeSettings, model: ModelHeader) -> dict[str, Any]:
    """What a request leaves open, for those who want to show it."""
    usual = bind_to_model(Request("Anything"), model.defaults, model.layers)
    values = usual.model_dump(include=RequestFields.model_fields.keys() - OWN_DEFAULTS)
    values |= values_from(usual.video_guidance, usual.audio_guidance)
    return {
        "size": settings.default_size,
        "seconds": f"{settings.default_seconds:g}",
        **{http_name(name): value for name, value in values.items() if value is not None},
        "pipeline": settings.pipeline,
    }


def _size(fields: VideoFields, settings: ServeSettings) -> tuple[int, int]:
    if fields.width is None and fields.height is None:
        return _pixels(fields.size or settings.default_size)
    if fields.size is not None and _pixels(fields.size) != (fields.width, fields.height):
        raise RequestRefused("Give size, or width and height, not both.", "size", "contradiction")
    if fields.width is None or fields.height is None:
        missing = "width" if fields.width is None else "height"
        raise RequestRefused(f"Give width and height together; {missing} is missing.", missing)
    return fields.width, fields.height


def _pixels(size: str) -> tuple[int, int]:
    width, height = size.split("x")
    return int(width), int(height)


def _require_steps(found: Mapping[str, Any], settings: ServeSettings) -> None:
    if found.get("num_inference_steps", 0) > settings.max_steps:
        words = f"num_inference_steps: at most {settings.max_steps} are allowed here."
        raise RequestRefused(words, "num_inference_steps", "too_many_steps")


def _require_length(frames: int, fps: float, settings: ServeSettings) -> None:
    """Sound costs by the second, however few frames are beside it."""
    if frames / fps > settings.max_seconds:
        words = (
            f"seconds: {frames} frames at {fps:g} a second last {frames / fps:.1f} seconds; at "
            f"most {settings.max_seconds:g} are allowed here."
        )
        raise RequestRefused(words, "seconds", "too_long")


def _require_loras(loras: Sequence[LoraField], settings: ServeSettings) -> None:
    if len(loras) > settings.max_loras:
        words = f"loras: at most {settings.max_loras} are allowed here."
        raise RequestRefused(words, "loras", "too_many")
    names = [lora.name for lora in loras]
    for lora in loras:
        if names.count(lora.name) > 1:
            words = f"loras: {lora.name[:100]!r} is given twice; add up its strengths."
            raise RequestRefused(words, "loras", "given_twice")
        if abs(lora.strength) > settings.max_lora_strength:
            limit = settings.max_lora_strength
            words = f"loras: {lora.name[:100]!r} has a strength beyond {limit:g}, either way."
            raise RequestRefused(words, "loras", "invalid_value")


def _check(
    submission: Submission, settings: ServeSettings, model: ModelHeader, loras: Mapping[str, Path]
) -> None:
    width, height = submission.render_size
    frames = submission.settings["num_frames"]
    pixels = width * height * frames
    if pixels > settings.max_pixels_frames:
        factor = settings.max_pixels_frames / pixels
        words = (
            f"{width}x{height} pixels in {frames} frames are more than is allowed here; ask for "
            f"{factor:.0%} of the length, or a smaller size."
        )
        raise RequestRefused(words, "size", "too_large")
    try:
        request = request_of(submission.prompt, submission.settings, loras)
        bind_to_model(request, model.defaults, model.layers)
    except RequestError as error:
        raise from_request(error) from None


def from_request(error: RequestError) -> RequestRefused:
    """A request's own words, under the name that the client knows the field by."""
    line = str(error).splitlines()[0]
    name, colon, words = line.partition(": ")
    if not colon or not name.replace("_", "").replace(".", "").isalnum():
        return RequestRefused(line, code="invalid_value")
    known = name.partition(".")[0]
    param = PARAMS.get(known) or http_name(known)
    return RequestRefused(f"{param}: {words}", param, "invalid_value")


def refusal(code: str, message: str) -> RequestRefused:
    """A worker's words about a request that it would not carry out."""
    if code == "invalid_request":
        return from_request(RequestError(message))
    return RequestRefused(message, "loras" if code == "invalid_lora" else None, code)


def _lora(given: Mapping[str, Any], loras: Mapping[str, Path]) -> LoraSpec:
    name: str = given["name"]
    if name not in loras:
        raise RequestRefused(f"There is no LoRA {name[:100]!r} here.", "loras", "lora_not_found")
    return LoraSpec(
        path=loras[name],
        strength=given["strength"],
        partial=given.get("partial", False),
        name=name,
    )
