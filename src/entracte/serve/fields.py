"""The fields of a request for a video."""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from entracte.config.base import SIZE, Size
from entracte.frame_rates import FrameRate
from entracte.request import (
    MAX_CRF,
    MAX_FRAMES,
    MAX_LORA_STRENGTH,
    MAX_LORAS,
    MAX_SEED,
    MAX_SIDE,
    MAX_STEPS,
)

from .strict_json import parse

MAX_SECONDS = 3600

# Of a list, whatever it is of: nobody needs so many.
MAX_ENTRIES = 200


def _parsed(value: Any) -> Any:
    """Forms have only strings: a list comes as JSON in one."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError:
        raise ValueError("must be JSON") from None


def _ascii(value: Any) -> Any:
    """Digits of other scripts are read as numbers, but were hardly meant as such."""
    if isinstance(value, str) and not value.isascii():
        raise ValueError("must be a number")
    return value


Finite = Annotated[float, BeforeValidator(_ascii), Field(allow_inf_nan=False)]
Scale = Annotated[Finite, Field(ge=-100, le=100)] | None
Rescale = Annotated[Finite, Field(ge=0, le=1)] | None
Blocks = Annotated[
    Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(max_length=MAX_ENTRIES)] | None,
    BeforeValidator(_parsed),
]


def _picture(value: Any) -> Any:
    """The URL in whatever clients put a picture into; raises ValueError where there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lstrip().startswith("{"):  # an object in a form
        value = _parsed(value)
    if isinstance(value, dict):
        if "file_id" in value:
            raise ValueError("no files are kept here, so a file_id cannot be used")
        value = value.get("image_url")
        if isinstance(value, dict):  # as chats have it
            value = value.get("url")
    if not isinstance(value, str):
        raise ValueError('must be a data URL, or {"image_url": "data:image/png;base64,…"}')
    return f"data:;base64,{value}" if BASE64.fullmatch(value) else value


# What is long enough to be a picture, and is written as nothing else is.
BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")

Picture = Annotated[
    str,
    BeforeValidator(_picture),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"image_url": {"type": "string"}},
                    "required": ["image_url"],
                },
            ],
            "description": "A data URL, or a URL that the server may fetch.",
        }
    ),
]


class LoraField(BaseModel):
    """One of the server's LoRAs, by name.

    partial: skip the parts that cannot be applied, with a warning, instead of rejecting it.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    strength: Annotated[Finite, Field(ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH)] = 1.0
    partial: bool = False


class ImageField(BaseModel):
    """An image that conditions the video at a frame.

    image: a data URL, or a URL that the server may fetch; in a form, the `input_reference` file at
    the same position.
    """

    model_config = ConfigDict(extra="forbid")

    image: Picture | None = None
    frame: int = Field(default=0, ge=0, le=MAX_FRAMES)
    strength: Annotated[Finite, Field(ge=0, le=1)] = 1.0
    crf: int | None = Field(default=None, ge=0, le=MAX_CRF)


# Blank, though Unicode counts them as letters or symbols.
BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def _visible(text: str) -> str:
    """Spaces, control characters and marks that stand on nothing are no prompt."""
    if all(each in BLANKS or unicodedata.category(each)[0] in "CMZ" for each in text):
        raise ValueError("has nothing in it that can be seen")
    return text


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class VideoFields(BaseModel):
    """A request for a video. Omitted fields have the server's defaults."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1), AfterValidator(_visible)]
    negative_prompt: str | None = None
    model: str | None = None
    size: Annotated[
        Annotated[Size, BeforeValidator(_lower)] | None,
        Field(json_schema_extra={"pattern": SIZE.pattern}, examples=["1280x720"]),
    ] = None
    width: int | None = Field(default=None, gt=0, le=MAX_SIDE)
    height: int | None = Field(default=None, gt=0, le=MAX_SIDE)
    seconds: Annotated[Finite, Field(gt=0, le=MAX_SECONDS, examples=["4"])] | None = None
    num_frames: int | None = Field(default=None, gt=0, le=MAX_FRAMES)
    fps: FrameRate | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    num_inference_steps: int | None = Field(default=None, gt=0, le=MAX_STEPS)
    pipeline: Literal["two-stage", "one-stage", "distilled"] | None = None
    guidance_scale: Scale = None
    video_cfg_guidance_scale: Scale = None
    audio_cfg_guidance_scale: Scale = None
    video_stg_guidance_scale: Scale = None
    audio_stg_guidance_scale: Scale = None
    a2v_guidance_scale: Scale = None
    v2a_guidance_scale: Scale = None
    video_rescale_scale: Rescale = None
    audio_rescale_scale: Rescale = None
    video_stg_blocks: Blocks = None
    audio_stg_blocks: Blocks = None
    guidance_batch: int | None = Field(default=None, ge=1, le=4)
    truncate_prompt: bool | None = None
    loras: Annotated[
        Annotated[list[LoraField], Field(max_length=MAX_LORAS)] | None, BeforeValidator(_parsed)
    ] = None
    input_reference: Picture | None = None
    images: Annotated[
        Annotated[list[ImageField], Field(max_length=MAX_ENTRIES)] | None, BeforeValidator(_parsed)
    ] = None
    preview: bool | None = None
    webhook_url: str | None = Field(default=None, max_length=2000)
