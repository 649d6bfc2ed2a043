"""Request: everything one generation asks for, validated here and nowhere else.

What it leaves open stays None until the model's version is known: see `entracte.binding`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from pydantic import (
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from entracte.conditions import (
    KINDS,
    MAX_SECONDS,
    Condition,
    ControlVideo,
    ExtendedVideo,
    ImageCondition,
    SoundCondition,
    SourceVideo,
    in_one_list,
)
from entracte.recipes import RECIPES, Guidance, GuidanceOverrides, PipelineName, Recipe
from entracte.request_fields import (
    MAX_ENTRIES,
    PARTS,
    GuidanceFields,
    Pipeline,
    Prompt,
    RequestFields,
)
from entracte.sampling.lengths import TIME, audio_token_count
from entracte.validation import Checked, plain, shown_value

if TYPE_CHECKING:
    from entracte.pictures import Picture

MAX_LORAS = 32
MAX_LORA_STRENGTH = 100.0

C = TypeVar("C", bound=Condition)


# What pipelines do with what they need, by kind.
NEEDED: Mapping[str, str] = MappingProxyType(
    {
        "sound": "makes a video for one",
        "source": "makes a part of a video anew",
        "extend": "makes a video longer",
        "control": "makes a video after one",
    }
)


class LoraSpec(Checked):
    """A LoRA that is merged into the model in every phase, at a strength of -100 to 100.

    path: a .safetensors file, or a folder that PEFT or diffusers saved. partial: leave out parts
    that cannot be applied, with a warning, instead of refusing the LoRA. name: for people who do
    not see paths.
    """

    positional = ("path", "strength")

    path: Path
    strength: FiniteFloat = Field(default=1.0, ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH)
    partial: bool = False
    name: str | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            path: str | PathLike[str],
            strength: float = 1.0,
            *,
            partial: bool = False,
            name: str | None = None,
        ) -> None: ...


class RequestOptions(TypedDict, total=False):
    """What a `Request` takes beside its prompt, as type checkers see it."""

    negative_prompt: str | None
    pipeline: PipelineName | None
    size: str | None
    height: int | None
    width: int | None
    seconds: float | None
    num_frames: int | None
    frame_rate: float | Fraction | str | None
    num_inference_steps: int | None
    seed: int | None
    conditions: Sequence[Condition]
    image: "Picture | None"
    images: "Sequence[ImageCondition | Picture]"
    sound: SoundCondition | None
    source: SourceVideo | None
    extended: ExtendedVideo | None
    controls: Sequence[ControlVideo]
    loras: Sequence[LoraSpec | str | PathLike[str]]
    video_guidance: Guidance | GuidanceOverrides | None
    audio_guidance: Guidance | GuidanceOverrides | None
    truncate_prompt: bool | None
    guidance_batch: int | None
    output_height: int | None
    output_width: int | None


class Request(Checked, RequestFields):
    """One generation. What is None takes the default of the model's version.

    `RequestFields` declares and describes most fields. Beyond that:

    size: short for both sides, as "1280x720": any even ones, cut from the next that can be made.
    height, width: multiples of 64, or 32 in pipelines of one stage.
    seconds: instead of num_frames, rounded to 8k + 1 frames.
    image: short for one of images, at frame 0.
    frame_rate: a number, a Fraction, or text. 23.976, 29.97, 59.94 and similar rates mean the
        x/1001 that they are rounded from.
    num_inference_steps: None in the distilled pipelines, whose steps are fixed.
    seed: the video is the same on any machine with identical arithmetic.
    video_guidance, audio_guidance: all scales, or with `GuidanceOverrides` some of them.
    conditions: what it is made from, in order. They may also be given by kind: images; sound, of
        the audio-to-video pipeline, which the video has, unchanged; source, of the retake
        pipelines, and extended, of the extend pipeline, whose size, length and rate are taken for
        what is left open; controls, of the ic-lora pipelines.
    output_height, output_width: even pixels of the file, cropped to the centre; None: all of them.

    Raises RequestError where a value is out of range or given values contradict each other.
    """

    positional = ("prompt",)

    prompt: Prompt[str]
    pipeline: Pipeline[PipelineName] = "two-stage"
    seconds: FiniteFloat | None = Field(default=None, gt=0, le=MAX_SECONDS)
    conditions: tuple[Condition, ...] = Field(default=(), max_length=MAX_ENTRIES)
    loras: tuple[LoraSpec, ...] = Field(default=(), max_length=MAX_LORAS)
    video_guidance: Guidance | GuidanceOverrides | None = None
    audio_guidance: Guidance | GuidanceOverrides | None = None
    output_height: int | None = Field(default=None, gt=0, multiple_of=2)
    output_width: int | None = Field(default=None, gt=0, multiple_of=2)

    if TYPE_CHECKING:  # other types are converted

        def __init__(self, prompt: str, **options: Unpack[RequestOptions]) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out None, and give what is short for other fields as these."""
        given = {name: value for name, value in values.items() if value is not None}
        pipeline = given.get("pipeline", "two-stage")
        if pipeline not in RECIPES:
            raise ValueError(f"pipeline {pipeline!r} is not one of {', '.join(RECIPES)}")
        if "image" in given:
            given["images"] = (given.pop("image"), *given.get("images", ()))
        if "size" in given:
            if given.keys() & {"height", "width"}:
                raise ValueError("size: is given beside height or width; give one of them")
            given |= _sides(given.pop("size"), RECIPES[pipeline])
        if "seconds" in given and "num_frames" in given:
            raise ValueError("seconds: is given beside num_frames; give one of them")
        return in_one_list(given)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; conditions of a kind take the place of those there were."""
        replaced = tuple(kind for kind in KINDS.values() if kind.field in (update or {}))
        if update is not None and replaced and "conditions" not in update:
            kept = tuple(each for each in self.conditions if not isinstance(each, replaced))
            update = {**update, "conditions": kept}
        return super().model_copy(update=update, deep=deep)

    @field_validator("loras", mode="before")
    @classmethod
    def _as_specs(cls, loras: Any) -> Any:
        if not isinstance(loras, list | tuple):
            return loras
        return [LoraSpec(each) if isinstance(each, str | PathLike) else each for each in loras]

    @field_validator("prompt")
    @classmethod
    def _has_prompt(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is empty; say what the video should show")
        return prompt

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _is_unicode(cls, text: str | None) -> str | None:
        # Python keeps bytes of the command line that are not UTF-8 as surrogates.
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"is not Unicode text at character {error.start + 1}; is it in UTF-8?"
            ) from None
        return text

    @field_validator("video_guidance", "audio_guidance")
    @classmethod
    def _in_range(
        cls, guidance: Guidance | GuidanceOverrides | None, info: ValidationInfo
    ) -> Guidance | GuidanceOverrides | None:
        if guidance is None:
            return None
        parts = {name: part for name, part in PARTS.items() if part.argument == info.field_name}
        values = asdict(guidance)
        try:
            GuidanceFields(**{name: values[part.attribute] for name, part in parts.items()})
        except ValidationError as error:
            found = error.errors()[0]
            words = f"{parts[str(found['loc'][0])].attribute} {plain(found)}"
            raise ValueError(words) from None
        return guidance

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Among the values that are given."""
        recipe = self.recipe
        if not recipe.guided and self.num_inference_steps is not None:
            steps = sum(len(phase.sigmas or ()) - 1 for phase in recipe.phases)
            raise ValueError(
                f"num_inference_steps: the {self.pipeline} pipeline has {steps} fixed steps; "
                "leave it out"
            )
        self._check_conditions(recipe)
        for name, side, cut in (
            ("height", self.height, self.output_height),
            ("width", self.width, self.output_width),
        ):
            if side is not None:
                self._check_side(name, side, cut)
        if self.num_frames is not None:
            self._check_length(self.num_frames)
        frames = [image.frame for image in self.images]
        for frame in frames:
            if self.num_frames is not None and frame >= self.num_frames:
                raise ValueError(
                    f"images: frame {frame} is outside the video, which has frames 0 to "
                    f"{self.num_frames - 1}"
                )
            if frames.count(frame) > 1:
                raise ValueError(f"images: two images are at frame {frame}")
        return self

    def _check_conditions(self, recipe: Recipe) -> None:
        """What the pipeline needs is there, and nothing that it does not take."""
        for kind in KINDS.values():
            given = any(isinstance(each, kind) for each in self.conditions)
            if kind.kind == recipe.needs and not given:
                raise ValueError(
                    f"{kind.field}: the {self.pipeline} pipeline {NEEDED[recipe.needs]}; give it"
                )
            takes = kind is ImageCondition and recipe.takes_images
            if given and not takes and kind.kind != recipe.needs:
                others = [each.name for each in RECIPES.values() if each.needs == kind.kind]
                verb = "take" if len(others) > 1 else "takes"
                told = f"; {' and '.join(others)} {verb} it" if others else ""
                raise ValueError(f"{kind.field}: the {self.pipeline} pipeline takes none{told}")
        if recipe.guided and self.source is not None and self.source.remake != "both":
            raise ValueError(
                f"source: remake: the {self.pipeline} pipeline makes both anew, picture and sound"
            )
        if recipe.needs == "control" and not self.loras:
            raise ValueError(
                f"loras: the {self.pipeline} pipeline needs the IC-LoRA that its control is for"
            )

    def _check_side(self, name: str, side: int, cut: int | None) -> None:
        multiple = self.recipe.size_multiple
        if side % multiple:
            raise ValueError(
                f"{name}: {side} is not a multiple of {multiple}, as the {self.pipeline} "
                f"pipeline needs; nearest: {_nearest(side, multiple, 0)}"
            )
        if cut is not None and cut > side:
            raise ValueError(f"output_{name}: {cut} cannot be cut from {side} pixels")

    def _check_length(self, frames: int) -> None:
        if frames % TIME != 1:
            raise ValueError(
                f"num_frames: {frames} is not of the form 8k + 1; nearest: "
                f"{_nearest(frames, TIME, 1)}"
            )
        if self.frame_rate is not None and audio_token_count(frames, self.frame_rate) == 0:
            raise ValueError(
                f"num_frames: {frames} at {self.frame_rate:g} frames a second is too "
                "short for any sound; ask for more frames or a lower frame_rate"
            )

    @field_validator("loras")
    @classmethod
    def _each_once(cls, loras: tuple[LoraSpec, ...]) -> tuple[LoraSpec, ...]:
        seen: set[str] = set()
        for lora in loras:
            try:
                file = os.path.realpath(lora.path)
            except ValueError:
                raise ValueError("has a path with a NUL in it") from None
            if file in seen:
                raise ValueError(f"{lora.name or lora.path} is there twice; add up its strengths")
            seen.add(file)
        return loras

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.pipeline]

    @property
    def images(self) -> tuple[ImageCondition, ...]:
        return self._of_kind(ImageCondition)

    @property
    def controls(self) -> tuple[ControlVideo, ...]:
        return self._of_kind(ControlVideo)

    @property
    def sound(self) -> SoundCondition | None:
        return next(iter(self._of_kind(SoundCondition)), None)

    @property
    def source(self) -> SourceVideo | None:
        return next(iter(self._of_kind(SourceVideo)), None)

    @property
    def extended(self) -> ExtendedVideo | None:
        return next(iter(self._of_kind(ExtendedVideo)), None)

    def _of_kind(self, kind: type[C]) -> tuple[C, ...]:
        return tuple(each for each in self.conditions if isinstance(each, kind))


def _sides(size: object, recipe: Recipe) -> dict[str, int]:
    """Height and width of `WxH`, and of what is cut from them where they cannot be made."""
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", size) if isinstance(size, str) else None
    if match is None:
        shown = shown_value(size)
        raise ValueError("size: must be a size such as 1280x720" + (shown and f", not {shown}"))
    width, height = map(int, match.groups())
    if width % 2 or height % 2 or not width * height:
        raise ValueError(f"size: {width}x{height} has an odd side; an H.264 video has even sides")
    made = {"height": recipe.rendered(height), "width": recipe.rendered(width)}
    if made == {"height": height, "width": width}:
        return made
    return made | {"output_height": height, "output_width": width}


def _nearest(value: int, multiple: int, offset: int) -> str:
    below = (value - offset) // multiple * multiple + offset
    above = below + multiple
    return f"{below} and {above}" if below > 0 else f"{above}"
