"""Request: everything one generation asks for, validated here and nowhere else."""

import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from entracte.errors import RequestError
from entracte.recipes import DEFAULTS, RECIPES, PipelineName, Recipe
from entracte.sampling.guidance import Guidance
from entracte.sampling.lengths import TIME, audio_token_count
from entracte.validation import describe

from .frame_rates import FrameRate

MAX_SIDE = 8192
MAX_FRAMES = 8 * 200 + 1
MAX_STEPS = 500
MAX_SEED = 2**64 - 1
MAX_CRF = 51
MAX_LORAS = 32
MAX_LORA_STRENGTH = 100.0

DEFAULT_VERSION = "2.3"


class _Frozen(BaseModel):
    """positional: the fields that may be given without their names, in this order."""

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
        return type(self)(**{**self._given(), **update})

    def _given(self) -> dict[str, Any]:
        """The arguments that make an equal one."""
        return dict(self)


class ImageCondition(_Frozen):
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
        # Of `https://`, a path keeps one slash.
        if str(path).startswith(("http:/", "https:/", "data:")):
            raise ValueError("is a URL; images are read from files, so download it first")
        return path

    if TYPE_CHECKING:  # a path may be given as text

        def __init__(
            self,
            path: str | PathLike[str],
            frame: int = 0,
            strength: float = 1.0,
            crf: int | None = None,
        ) -> None: ...


class LoraSpec(_Frozen):
    """A LoRA that is merged into the model in every phase, at a strength of -100 to 100.

    path: a .safetensors file, or a folder that PEFT or diffusers saved. partial: leave out, with a
    warning, what of it cannot be applied, instead of refusing it. name: what those call it who do
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


class Request(_Frozen):
    """One generation. What is left out takes the pipeline's official default.

    height, width: pixels. num_frames: 8k + 1.
    frame_rate: frames a second: a number, a Fraction, or text such as "24000/1001". 23.976, 29.97,
        59.94 and their like become the x/1001 that they are roundings of.
    num_inference_steps: of the guided phase; the distilled pipeline's steps are fixed.
    seed: the same seed gives the same video on every machine that computes alike.
    truncate_prompt: cut a prompt of more than 1,024 tokens instead of refusing it.
    output_height, output_width: even pixels of the file, cut from the centre; None: all of them.
    guidance_batch: how many guidance passes are computed at once; more is faster on a GPU with
        memory to spare, and rounds differently.

    Raises RequestError where a value is out of range or values contradict each other.
    """

    positional = ("prompt",)

    prompt: str
    negative_prompt: str
    pipeline: PipelineName
    height: int = Field(gt=0, le=MAX_SIDE)
    width: int = Field(gt=0, le=MAX_SIDE)
    num_frames: int = Field(gt=0, le=MAX_FRAMES)
    frame_rate: FrameRate
    num_inference_steps: int = Field(gt=0, le=MAX_STEPS)
    seed: int = Field(ge=0, le=MAX_SEED)
    images: tuple[ImageCondition, ...] = ()
    loras: tuple[LoraSpec, ...] = Field(default=(), max_length=MAX_LORAS)
    video_guidance: Guidance
    audio_guidance: Guidance
    truncate_prompt: bool = False
    guidance_batch: int = Field(default=1, ge=1, le=4)
    output_height: int | None = Field(default=None, gt=0, multiple_of=2)
    output_width: int | None = Field(default=None, gt=0, multiple_of=2)

    if TYPE_CHECKING:  # the same, where None stands for the pipeline's default

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
            loras: Sequence[LoraSpec] = (),
            video_guidance: Guidance | None = None,
            audio_guidance: Guidance | None = None,
            truncate_prompt: bool = False,
            guidance_batch: int = 1,
            output_height: int | None = None,
            output_width: int | None = None,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in values.items() if value is not None}
        pipeline = given.setdefault("pipeline", "two-stage")
        if pipeline not in RECIPES:
            raise ValueError(f"pipeline {pipeline!r} is none of {', '.join(RECIPES)}")
        recipe, defaults = RECIPES[pipeline], DEFAULTS[DEFAULT_VERSION]
        if not recipe.guided and "num_inference_steps" in given:
            steps = sum(len(phase.sigmas or ()) - 1 for phase in recipe.phases)
            raise ValueError(
                f"num_inference_steps: the {pipeline} pipeline has {steps} fixed steps; "
                "leave it out"
            )
        return {
            "negative_prompt": defaults.negative_prompt,
            "height": recipe.height,
            "width": recipe.width,
            "num_frames": defaults.num_frames,
            "frame_rate": defaults.frame_rate,
            "num_inference_steps": defaults.num_inference_steps,
            "seed": defaults.seed,
            "video_guidance": defaults.video_guidance,
            "audio_guidance": defaults.audio_guidance,
        } | given

    @field_validator("prompt")
    @classmethod
    def _has_prompt(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is empty; say what the video should show")
        return prompt

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _is_unicode(cls, text: str) -> str:
        # Python keeps bytes of the command line that are not UTF-8 as surrogates.
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"is not Unicode text at character {error.start + 1}; is it in UTF-8?"
            ) from None
        return text

    @field_validator("video_guidance", "audio_guidance")
    @classmethod
    def _sensible(cls, guidance: Guidance) -> Guidance:
        scales = (guidance.cfg, guidance.stg, guidance.modality, guidance.rescale)
        if not all(math.isfinite(scale) for scale in scales):
            raise ValueError("has a scale that is not a finite number")
        if not 0 <= guidance.rescale <= 1:
            raise ValueError(f"rescale is {guidance.rescale}; it goes from 0 to 1")
        if any(block < 0 for block in guidance.stg_blocks or ()):
            raise ValueError("has a negative block number")
        return guidance

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        multiple = self.recipe.size_multiple
        for name in ("height", "width"):
            size = self.height if name == "height" else self.width
            if size % multiple:
                raise ValueError(
                    f"{name}: {size} is not a multiple of {multiple}, as the {self.pipeline} "
                    f"pipeline needs; nearest: {_nearest(size, multiple, 0)}"
                )
        for name, cut, size in (
            ("output_height", self.output_height, self.height),
            ("output_width", self.output_width, self.width),
        ):
            if cut is not None and cut > size:
                raise ValueError(f"{name}: {cut} cannot be cut from {size} pixels")
        if self.num_frames % TIME != 1:
            raise ValueError(
                f"num_frames: {self.num_frames} is not of the form 8k + 1; nearest: "
                f"{_nearest(self.num_frames, TIME, 1)}"
            )
        if self.audio_tokens == 0:
            raise ValueError(
                f"num_frames: {self.num_frames} at {self.frame_rate:g} frames a second is too "
                "short for any sound; ask for more frames or a lower frame_rate"
            )
        frames = [image.frame for image in self.images]
        for frame in frames:
            if frame >= self.num_frames:
                raise ValueError(
                    f"images: frame {frame} is outside the video, which has frames 0 to "
                    f"{self.num_frames - 1}"
                )
            if frames.count(frame) > 1:
                raise ValueError(f"images: two images stand at frame {frame}")
        return self

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

    def _given(self) -> dict[str, Any]:
        given = dict(self)
        if not self.recipe.guided:  # its steps are fixed, and may not be given
            del given["num_inference_steps"]
        return given

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.pipeline]

    @property
    def audio_tokens(self) -> int:
        return audio_token_count(self.num_frames, self.frame_rate)


def _nearest(value: int, multiple: int, offset: int) -> str:
    below = (value - offset) // multiple * multiple + offset
    above = below + multiple
    return f"{below} and {above}" if below > 0 else f"{above}"
