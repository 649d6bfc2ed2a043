"""Request: everything one generation asks for, validated here and nowhere else.

What it leaves open stays None until the model's version is known: see `entracte.binding`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from entracte.errors import RequestError
from entracte.recipes import RECIPES, Guidance, GuidanceOverrides, PipelineName, Recipe
from entracte.request_fields import PARTS, GuidanceFields, Pipeline, Prompt, RequestFields
from entracte.sampling.lengths import TIME, audio_token_count
from entracte.validation import describe, plain

MAX_CRF = 51
MAX_LORAS = 32
MAX_LORA_STRENGTH = 100.0


class _Checked(BaseModel):
    """Values that are checked when made or copied, and never change. Errors are RequestErrors.

    positional: the fields that may be given without their names, in this order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    positional: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *unnamed: Any, **values: Any) -> None:
        """Raises RequestError, naming every field that is wrong and what would be right."""
        if len(unnamed) > len(self.positional):
            names = ", ".join(self.positional)
            raise RequestError(f"{type(self).__name__} takes only {names} without a name")
        for name, value in zip(self.positional, unnamed, strict=False):
            if name in values:
                raise RequestError(f"{name} is given twice")
            values[name] = value
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(describe(error)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are checked as those of a new one are."""
        if update is None:
            return super().model_copy(deep=deep)
        return type(self)(**{**dict(self), **update})


class ImageCondition(_Checked):
    """An image that the video shows at a frame.

    frame: the pixel frame, from 0. strength: 0 (ignored) to 1 (kept as it is).
    crf: quality of the H.264 re-compression, 0 (none) to 51 (worst); None: the version's default.
    """

    positional = ("path", "frame", "strength", "crf")

    path: Path
    frame: int = Field(default=0, ge=0)
    strength: float = Field(default=1.0, ge=0, le=1)
    crf: int | None = Field(default=None, ge=0, le=MAX_CRF)

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: Path) -> Path:
        return _on_disk(path, "images")

    if TYPE_CHECKING:  # a path may be given as text

        def __init__(
            self,
            path: str | PathLike[str],
            frame: int = 0,
            strength: float = 1.0,
            crf: int | None = None,
        ) -> None: ...


class SoundCondition(_Checked):
    """A sound that the picture is made for, and that the video has: a file with two channels.

    start: the second of the file at which the video begins.
    """

    positional = ("path", "start")

    path: Path
    start: FiniteFloat = Field(default=0.0, ge=0)

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: Path) -> Path:
        return _on_disk(path, "sounds")

    if TYPE_CHECKING:

        def __init__(self, path: str | PathLike[str], start: float = 0.0) -> None: ...


class SourceVideo(_Checked):
    """A video of which a part is made anew.

    start, end: the window, in seconds of the video; what of it meets the window is made anew.
    remake: the picture, the sound, or both; the other stays as it is, also in the window.
    """

    positional = ("path", "start", "end", "remake")

    path: Path
    start: FiniteFloat = Field(ge=0)
    end: FiniteFloat
    remake: Literal["both", "picture", "sound"] = "both"

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: Path) -> Path:
        return _on_disk(path, "videos")

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end: {self.end:g} s is not after start, {self.start:g} s")
        return self

    if TYPE_CHECKING:

        def __init__(
            self,
            path: str | PathLike[str],
            start: float,
            end: float,
            remake: Literal["both", "picture", "sound"] = "both",
        ) -> None: ...


class LoraSpec(_Checked):
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


class Request(_Checked, RequestFields):
    """One generation. What is None takes the default of the model's version.

    `RequestFields` declares and describes most fields. Beyond that:

    height, width: multiples of 64, or 32 in pipelines of one stage.
    frame_rate: a number, a Fraction, or text. 23.976, 29.97, 59.94 and similar rates mean the
        x/1001 that they are rounded from.
    num_inference_steps: None in the distilled pipelines, whose steps are fixed.
    seed: the video is the same on any machine with identical arithmetic.
    video_guidance, audio_guidance: all scales, or with `GuidanceOverrides` some of them.
    source: of the retake pipelines; what is left open of size, length and rate is its own.
    sound: of the audio-to-video pipeline; the video has it, unchanged.
    output_height, output_width: even pixels of the file, cropped to the centre; None: all of them.

    Raises RequestError where a value is out of range or given values contradict each other.
    """

    positional = ("prompt",)

    prompt: Prompt[str]
    pipeline: Pipeline[PipelineName] = "two-stage"
    images: tuple[ImageCondition, ...] = ()
    sound: SoundCondition | None = None
    source: SourceVideo | None = None
    loras: tuple[LoraSpec, ...] = Field(default=(), max_length=MAX_LORAS)
    video_guidance: Guidance | GuidanceOverrides | None = None
    audio_guidance: Guidance | GuidanceOverrides | None = None
    output_height: int | None = Field(default=None, gt=0, multiple_of=2)
    output_width: int | None = Field(default=None, gt=0, multiple_of=2)

    if TYPE_CHECKING:  # a rate and lists may be of other types, which are converted

        def __init__(
            self,
            prompt: str,
            *,
            negative_prompt: str | None = None,
            pipeline: PipelineName | None = None,
            height: int | None = None,
            width: int | None = None,
            num_frames: int | None = None,
            frame_rate: float | Fraction | str | None = None,
            num_inference_steps: int | None = None,
            seed: int | None = None,
            images: Sequence[ImageCondition] = (),
            sound: SoundCondition | None = None,
            source: SourceVideo | None = None,
            loras: Sequence[LoraSpec] = (),
            video_guidance: Guidance | GuidanceOverrides | None = None,
            audio_guidance: Guidance | GuidanceOverrides | None = None,
            truncate_prompt: bool | None = None,
            guidance_batch: int | None = None,
            output_height: int | None = None,
            output_width: int | None = None,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _leave_out_none(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in values.items() if value is not None}
        pipeline = given.get("pipeline", "two-stage")
        if pipeline not in RECIPES:
            raise ValueError(f"pipeline {pipeline!r} is not one of {', '.join(RECIPES)}")
        return given

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
        if recipe.takes_sound and self.sound is None:
            raise ValueError(f"sound: the {self.pipeline} pipeline makes a video for one; give it")
        if self.sound is not None and not recipe.takes_sound:
            raise ValueError(
                f"sound: the {self.pipeline} pipeline makes its own; audio-to-video takes one"
            )
        self._check_source(recipe)
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

    def _check_source(self, recipe: Recipe) -> None:
        source = self.source
        if source is None and recipe.takes_video:
            raise ValueError(f"source: the {self.pipeline} pipeline changes a video; give it")
        if source is None:
            return
        if not recipe.takes_video:
            raise ValueError(
                f"source: the {self.pipeline} pipeline makes all of a video; retake changes one"
            )
        if self.images:
            raise ValueError(f"images: the {self.pipeline} pipeline takes none")
        if recipe.guided and source.remake != "both":
            raise ValueError(
                f"source: remake: the {self.pipeline} pipeline makes both anew, picture and sound"
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


def _on_disk(path: Path, what: str) -> Path:
    # Of `https://`, a path keeps one slash.
    if str(path).startswith(("http:/", "https:/", "data:")):
        raise ValueError(f"is a URL; {what} are read from files, so download it first")
    return path


def _nearest(value: int, multiple: int, offset: int) -> str:
    below = (value - offset) // multiple * multiple + offset
    above = below + multiple
    return f"{below} and {above}" if below > 0 else f"{above}"
