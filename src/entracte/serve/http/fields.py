"""What a client may say when it asks for a video."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from entracte.rates import FrameRate
from entracte.request import MAX_CRF, MAX_FRAMES, MAX_SEED, MAX_SIDE, MAX_STEPS
from entracte.settings.base import SIZE, Size

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
        raise ValueError("is to be JSON") from None


Finite = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] | None
Rescale = Annotated[float, Field(ge=0, le=1)] | None
Blocks = Annotated[
    Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(max_length=MAX_ENTRIES)] | None,
    BeforeValidator(_parsed),
]


class LoraField(BaseModel):
    """A LoRA of the server's, by name."""

    model_config = ConfigDict(extra="forbid")

    name: str
    strength: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0


class ImageField(BaseModel):
    """An image that the video shows at a frame.

    image: a data URL, or a URL where the server may fetch it; in a form, the file of the same place
    among the `input_reference` files.
    """

    model_config = ConfigDict(extra="forbid")

    image: str | None = None
    frame: int = Field(default=0, ge=0, le=MAX_FRAMES)
    strength: float = Field(default=1.0, ge=0, le=1)
    crf: int | None = Field(default=None, ge=0, le=MAX_CRF)


class Reference(BaseModel):
    """OpenAI's other form of an `input_reference`."""

    model_config = ConfigDict(extra="forbid")

    image_url: str


class VideoFields(BaseModel):
    """One request for a video. What is left out is the server's default."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    model: str | None = None
    size: Annotated[
        Size | None, Field(json_schema_extra={"pattern": SIZE.pattern}, examples=["1280x720"])
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
        Annotated[list[LoraField], Field(max_length=MAX_ENTRIES)] | None, BeforeValidator(_parsed)
    ] = None
    input_reference: str | Reference | None = None
    images: Annotated[
        Annotated[list[ImageField], Field(max_length=MAX_ENTRIES)] | None, BeforeValidator(_parsed)
    ] = None
    preview: bool | None = None
    webhook_url: str | None = Field(default=None, max_length=2000)
