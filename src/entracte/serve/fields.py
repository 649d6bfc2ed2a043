"""The fields of a request for a video."""

import re
import unicodedata
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from entracte.conditions import MAX_CRF
from entracte.config.base import SIZE, Size
from entracte.request import MAX_LORA_STRENGTH, MAX_LORAS
from entracte.request_fields import (
    MAX_ENTRIES,
    MAX_FRAMES,
    GuidanceFields,
    Offer,
    Prompt,
    RequestFields,
    Scale,
    http_name,
)

from .strict_json import parse

MAX_SECONDS = 3600


class _Strict(BaseModel):
    """Fields of a body: those that are unknown are refused, and so are numbers in other scripts.

    Forms have only text, so a list may be JSON in text.
    """

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str) or info.field_name is None:
            return value
        annotation = cls.model_fields[info.field_name].annotation
        kinds = {get_origin(each) or each for each in get_args(annotation) or (annotation,)}
        if list in kinds:
            return _parsed(value)
        if float in kinds and not value.isascii():
            raise ValueError("must be a number")
        return value


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        raise ValueError("must be JSON") from None


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


class LoraField(_Strict):
    """One of the server's LoRAs, by name.

    partial: skip the parts that cannot be applied, with a warning, instead of rejecting it.
    """

    name: str
    strength: float = Field(
        default=1.0, ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH, allow_inf_nan=False
    )
    partial: bool = False


class ImageField(_Strict):
    """An image that conditions the video at a frame.

    image: a data URL, or a URL that the server may fetch; in a form, the `input_reference` file at
    the same position.
    """

    image: Picture | None = None
    frame: int = Field(default=0, ge=0, le=MAX_FRAMES)
    strength: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
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


class VideoFields(_Strict, GuidanceFields, RequestFields):
    """A request for a video. Omitted fields have the server's defaults."""

    model_config = ConfigDict(alias_generator=http_name)

    prompt: Annotated[Prompt[str], Field(min_length=1), AfterValidator(_visible)]
    model: str | None = Field(
        default=None, description="The model, by a name that GET /v1/models lists."
    )
    size: Annotated[
        Annotated[Size, BeforeValidator(_lower)] | None,
        Field(
            description="Width and height in pixels, such as 1280x720; instead of the two fields.",
            json_schema_extra={"pattern": SIZE.pattern},
            examples=["1280x720"],
        ),
    ] = None
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Length of the video, rounded to 8k + 1 frames; num_frames takes precedence.",
        examples=["4"],
    )
    guidance_scale: Annotated[
        Scale, Field(description="The same as video_cfg_guidance_scale, which takes precedence.")
    ] = None
    loras: list[LoraField] | None = Field(
        default=None,
        max_length=MAX_LORAS,
        description="LoRAs of this server by name and strength, merged in all stages.",
    )
    input_reference: Annotated[
        Picture | None, Field(description="An image, shown at the first frame.")
    ] = None
    images: list[ImageField] | None = Field(
        default=None,
        max_length=MAX_ENTRIES,
        description="Images, each shown at a frame.",
    )
    preview: Annotated[
        bool | None,
        Field(description="Send small pictures with the events while the video is made."),
        Offer(label="Show previews while it is made"),
    ] = None
    webhook_url: str | None = Field(
        default=None,
        max_length=2000,
        description="Called when the video finishes, if its host is allowed.",
    )
