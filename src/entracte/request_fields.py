"""The fields of a request, each declared once for Python, the command, the service and the page.

From a declaration follow the flag, variable and settings key of `entracte generate`, the HTTP field
with its range and description, what the service keeps to make the same video again, and the control
on the page.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from .frame_rates import FrameRate
from .recipes import Guidance, GuidanceOverrides, PipelineName

MAX_SIDE = 8192
MAX_FRAMES = 8 * 200 + 1
MAX_STEPS = 500
MAX_SEED = 2**64 - 1
MAX_SCALE = 100
MAX_BLOCK = 1000

# Entries of a list, whatever they are.
MAX_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a field can be set, beside its type, range and description.

    group, values: of its flag: the group in the command's help, and the placeholder of its value;
        if empty, the flag is a switch.
    http: the name that HTTP clients know it by, if different.
    label: of its control among the page's advanced settings; if empty, there is none.
    step: by how much the control's arrows change the value; None: by 1.
    hint: whether the page shows the description below the control.
    """

    group: str = ""
    values: str = ""
    http: str = ""
    label: str = ""
    step: float | None = None
    hint: bool = False


@dataclass(frozen=True, slots=True)
class PartOf:
    """The stream whose guidance a field belongs to, and the attribute of `Guidance` it sets."""

    stream: Literal["video", "audio"]
    attribute: str

    @property
    def argument(self) -> str:
        """The field of a `Request`."""
        return f"{self.stream}_guidance"


Given = TypeVar("Given")

# These two may not be None everywhere: `Prompt[str]`, `Prompt[str | None]`.
Prompt = Annotated[
    Given,
    Field(description="What the video shows and sounds like."),
    Offer("request", "TEXT"),
]
Pipeline = Annotated[
    Given,
    Field(description=f"The pipeline: {', '.join(get_args(PipelineName))}."),
    Offer("model", "NAME", label="Pipeline"),
]


PixelCount = Annotated[int, Field(gt=0, le=MAX_SIDE)]
FrameCount = Annotated[int, Field(gt=0, le=MAX_FRAMES)]
StepCount = Annotated[int, Field(gt=0, le=MAX_STEPS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
PassCount = Annotated[int, Field(ge=1, le=4)]


class RequestFields(BaseModel):
    """What can be requested in the same way everywhere; None means the model's default."""

    prompt: Prompt[str | None] = None
    negative_prompt: Annotated[
        str | None, Field(description="What to avoid."), Offer("request", "TEXT")
    ] = None
    pipeline: Pipeline[PipelineName | None] = None
    height: Annotated[
        PixelCount | None,
        Field(description="Height in pixels."),
        Offer("request", "N"),
    ] = None
    width: Annotated[
        PixelCount | None,
        Field(description="Width in pixels."),
        Offer("request", "N"),
    ] = None
    num_frames: Annotated[
        FrameCount | None,
        Field(description="Number of frames, 8k + 1."),
        Offer("request", "N"),
    ] = None
    frame_rate: Annotated[
        FrameRate | None,
        Field(description="Frames per second, such as 24 or 24000/1001."),
        Offer("request", "FPS", http="fps", label="Frames a second"),
    ] = None
    num_inference_steps: Annotated[
        StepCount | None,
        Field(description="Denoising steps in stage 1."),
        Offer("request", "N", label="Steps"),
    ] = None
    seed: Annotated[
        Seed | None,
        Field(description="Seed of the noise; the same seed gives the same video."),
        Offer("request", "N"),
    ] = None
    truncate_prompt: Annotated[
        bool | None,
        Field(description="Cut a prompt longer than 1,024 tokens instead of refusing it."),
        Offer("request", label="Cut a prompt that is too long, instead of refusing it"),
    ] = None
    guidance_batch: Annotated[
        PassCount | None,
        Field(
            description="Guidance passes computed at once. By default as many as a GPU has memory "
            "for anyway, and 1 on a CPU; another number may round differently.",
        ),
        Offer("guidance", "N", label="Guidance passes at once", hint=True),
    ] = None


Scale = Annotated[float | None, Field(ge=-MAX_SCALE, le=MAX_SCALE, allow_inf_nan=False)]
Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
Blocks = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_BLOCK)]] | None, Field(max_length=MAX_ENTRIES)
]


class GuidanceFields(BaseModel):
    """The guidance of both streams as plain values, for flags and HTTP; None: the model's default.

    A `Request` has the same in `video_guidance` and `audio_guidance`.
    """

    video_cfg_guidance_scale: Annotated[
        Scale,
        Field(
            description="How strongly to steer the picture away from the negative prompt; 1 is off."
        ),
        Offer("guidance", "X", label="Prompt (CFG)"),
        PartOf("video", "cfg"),
    ] = None
    audio_cfg_guidance_scale: Annotated[
        Scale,
        Field(
            description="How strongly to steer the sound away from the negative prompt; 1 is off."
        ),
        Offer("guidance", "X", label="Prompt (CFG)"),
        PartOf("audio", "cfg"),
    ] = None
    video_stg_guidance_scale: Annotated[
        Scale,
        Field(
            description="How strongly to steer the picture away from "
            "skipped self-attention; 0 is off."
        ),
        Offer("guidance", "X", label="Perturbed (STG)"),
        PartOf("video", "stg"),
    ] = None
    audio_stg_guidance_scale: Annotated[
        Scale,
        Field(
            description="How strongly to steer the sound away from "
            "skipped self-attention; 0 is off."
        ),
        Offer("guidance", "X", label="Perturbed (STG)"),
        PartOf("audio", "stg"),
    ] = None
    video_stg_blocks: Annotated[
        Blocks,
        Field(description="Blocks in which the picture's self-attention is skipped."),
        Offer("guidance", "N…", label="STG blocks"),
        PartOf("video", "stg_blocks"),
    ] = None
    audio_stg_blocks: Annotated[
        Blocks,
        Field(description="Blocks in which the sound's self-attention is skipped."),
        Offer("guidance", "N…", label="STG blocks"),
        PartOf("audio", "stg_blocks"),
    ] = None
    a2v_guidance_scale: Annotated[
        Scale,
        Field(description="How strongly the picture follows the sound; 1 is off."),
        Offer("guidance", "X", label="Cross-modal"),
        PartOf("video", "modality"),
    ] = None
    v2a_guidance_scale: Annotated[
        Scale,
        Field(description="How strongly the sound follows the picture; 1 is off."),
        Offer("guidance", "X", label="Cross-modal"),
        PartOf("audio", "modality"),
    ] = None
    video_rescale_scale: Annotated[
        Share,
        Field(
            description="How much of the contrast that guidance adds to the picture is taken back."
        ),
        Offer("guidance", "X", label="Rescale"),
        PartOf("video", "rescale"),
    ] = None
    audio_rescale_scale: Annotated[
        Share,
        Field(
            description="How much of the contrast that guidance adds to the sound is taken back."
        ),
        Offer("guidance", "X", label="Rescale"),
        PartOf("audio", "rescale"),
    ] = None


PARTS: Mapping[str, PartOf] = MappingProxyType(
    {
        name: part
        for name, field in GuidanceFields.model_fields.items()
        for part in field.metadata
        if isinstance(part, PartOf)
    }
)


def offer_of(field: FieldInfo) -> Offer | None:
    """How a field is offered; None for one that is not declared here."""
    return next((each for each in field.metadata if isinstance(each, Offer)), None)


def http_name(name: str) -> str:
    """The name that HTTP clients know a field by."""
    field = RequestFields.model_fields.get(name)
    offer = None if field is None else offer_of(field)
    return (offer and offer.http) or name


def arguments_from(given: Mapping[str, Any]) -> dict[str, Any]:
    """A `Request`'s arguments from the values of these fields, by name; other names are ignored."""
    arguments = {name: given.get(name) for name in RequestFields.model_fields}
    overrides: dict[str, dict[str, Any]] = {}
    for name, part in PARTS.items():
        value = given.get(name)
        if value is not None:
            value = tuple(value) if isinstance(value, list) else value
            overrides.setdefault(part.argument, {})[part.attribute] = value
    arguments |= {name: GuidanceOverrides(**values) for name, values in overrides.items()}
    return {name: value for name, value in arguments.items() if value is not None}


def values_from(video: Guidance, audio: Guidance) -> dict[str, Any]:
    """The values of `GuidanceFields`, by name, that stand for the guidance of both streams."""
    streams = {"video": asdict(video), "audio": asdict(audio)}
    return {name: streams[part.stream][part.attribute] for name, part in PARTS.items()}


def value_schemas(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The JSON schema of every field's value, by its name in JSON.

    Of alternatives only the first is kept: null, and a number as text, are left out.
    """
    properties: dict[str, dict[str, Any]] = kind.model_json_schema()["properties"]
    found = {}
    for name, schema in properties.items():
        value = schema
        while "anyOf" in value:
            value = value["anyOf"][0]
        if value.get("type") == "integer" and "exclusiveMinimum" in value:
            value = value | {"minimum": value["exclusiveMinimum"] + 1}
        found[name] = schema | value
    return found


def range_words(schema: Mapping[str, Any]) -> str:
    """`1 to 4`, for a value's schema; empty if it has no upper bound."""
    if "maximum" not in schema:
        return ""
    low = f"{_number_words(schema['minimum'])} " if "minimum" in schema else "up "
    return f"{low}to {_number_words(schema['maximum'])}"


def _number_words(number: float) -> str:
    if number == MAX_SEED:
        return "2^64 - 1"
    return f"{number:,g}"
