"""What a video is made from beside its prompt: media, each with what it is for.

A kind is a class here, and its fields are declared there once: the command's flag and the HTTP
object of the kind follow. Needs no torch.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from .pictures import as_bytes
from .validation import Checked

if TYPE_CHECKING:
    from .pictures import Picture

MAX_CRF = 51
MAX_SECONDS = 3600


def _on_disk(path: Path) -> Path:
    # Of `https://`, a path keeps one slash.
    if str(path).startswith(("http:/", "https:/", "data:")):
        raise ValueError("is a URL; media are read from files, so download it first")
    return path


# The path of a picture in memory.
IN_MEMORY = Path("a picture in memory")

MediaFile = Annotated[Path, AfterValidator(_on_disk)]
AddedSeconds = Annotated[FiniteFloat, Field(ge=0, le=MAX_SECONDS)]
Strength = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Remade = Literal["both", "picture", "sound"]


class MediaCondition(Checked):
    """A file, and what it is for.

    field: of a `Request`, that has all of this kind. many: whether there may be several.
    """

    kind: ClassVar[str]
    field: ClassVar[str]
    many: ClassVar[bool] = False

    path: MediaFile


class ImageCondition(MediaCondition):
    """An image that the video shows at a frame.

    path: of a file; or instead a picture in memory (PIL, numpy, or the bytes of a file), which is
        kept in data.
    frame: the pixel frame, from 0. strength: 0 (ignored) to 1 (kept as it is).
    crf: quality of the H.264 re-compression, 0 (none) to 51 (worst); None: the version's default.
    """

    kind, field, many = "image", "images", True
    positional = ("path", "frame", "strength", "crf")

    frame: int = Field(default=0, ge=0, description="The frame, from 0.")
    strength: Strength = Field(default=1.0, description="From 0, ignored, to 1, kept as it is.")
    crf: int | None = Field(
        default=None, ge=0, le=MAX_CRF, description="Quality of the re-compression; 0 is none."
    )
    data: bytes | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_picture(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "path" not in values or isinstance(values["path"], str | PathLike):
            return values
        return {**values, "path": IN_MEMORY, "data": as_bytes(values["path"])}

    if TYPE_CHECKING:

        def __init__(
            self,
            path: "Picture",
            frame: int = 0,
            strength: float = 1.0,
            crf: int | None = None,
        ) -> None: ...


class SoundCondition(MediaCondition):
    """A sound that the picture is made for, and that the video has: a file with two channels.

    start: the second of the file at which the video begins.
    """

    kind, field = "sound", "sound"
    positional = ("path", "start")

    start: FiniteFloat = Field(
        default=0.0, ge=0, description="The second of the file at which the video begins."
    )

    if TYPE_CHECKING:

        def __init__(self, path: str | PathLike[str], start: float = 0.0) -> None: ...


class SourceVideo(MediaCondition):
    """A video of which a part is made anew.

    start, end: the window, in seconds of the video; what of it meets the window is made anew.
    remake: the picture, the sound, or both; the other stays as it is, also in the window.
    """

    kind, field = "source", "source"
    positional = ("path", "start", "end", "remake")

    start: FiniteFloat = Field(ge=0, description="Where the part begins, in seconds.")
    end: FiniteFloat = Field(description="Where the part ends, in seconds.")
    remake: Remade = Field(default="both", description="What is made anew there.")

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end: {self.end:g} s is not after start, {self.start:g} s")
        return self

    if TYPE_CHECKING:

        def __init__(
            self, path: str | PathLike[str], start: float, end: float, remake: Remade = "both"
        ) -> None: ...


class ExtendedVideo(MediaCondition):
    """A video that is made longer, with its sound.

    after, before: the seconds that are added at its end and at its beginning, in steps of eight
        frames.
    """

    kind, field = "extend", "extended"
    positional = ("path", "after", "before")

    after: AddedSeconds = Field(default=0.0, description="Seconds that are added at its end.")
    before: AddedSeconds = Field(
        default=0.0, description="Seconds that are added at its beginning."
    )

    @model_validator(mode="after")
    def _is_longer(self) -> Self:
        if not self.after and not self.before:
            raise ValueError("after: say how many seconds are added there, or in before")
        return self

    if TYPE_CHECKING:

        def __init__(
            self, path: str | PathLike[str], after: float = 0.0, before: float = 0.0
        ) -> None: ...


class ControlVideo(MediaCondition):
    """A video that an IC-LoRA has the first act look at, such as poses, depths or edges.

    strength: 0 (noise) to 1 (as it is). attention: how much the video attends to it, 0 to 1.
    mask: a video that says where it does: white everywhere as `attention` says, black nowhere.
    """

    kind, field, many = "control", "controls", True
    positional = ("path", "strength", "attention", "mask")

    strength: Strength = Field(default=1.0, description="From 0, noise, to 1, as it is.")
    attention: Strength = Field(
        default=1.0, description="How much the video attends to it, from 0 to 1."
    )
    mask: MediaFile | None = Field(
        default=None, description="A video that says where, in white, the video attends to it."
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            path: str | PathLike[str],
            strength: float = 1.0,
            attention: float = 1.0,
            mask: str | PathLike[str] | None = None,
        ) -> None: ...


Condition = ImageCondition | SoundCondition | SourceVideo | ExtendedVideo | ControlVideo

# By name.
KINDS: Mapping[str, type[Condition]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (ImageCondition, SoundCondition, SourceVideo, ExtendedVideo, ControlVideo)
    }
)


def values_of(kind: type[Condition]) -> str:
    """How the values of a kind are given on a line: `PATH [FRAME [STRENGTH [CRF]]]`."""
    words = ""
    for name in reversed(kind.positional):
        inner = name.upper() + (f" {words}" if words else "")
        words = inner if kind.model_fields[name].is_required() else f"[{inner}]"
    return words


def in_one_list(values: Mapping[str, Any]) -> dict[str, Any]:
    """A request's values in which `conditions` has what is given by the fields of the kinds, too.

    Raises ValueError, naming the field, for what is no condition of its kind, or one too many.
    """
    found = dict(values)
    given = found.pop("conditions", ())
    if not isinstance(given, list | tuple):
        raise ValueError("conditions: must be a list")
    conditions = list(given)
    for kind in KINDS.values():
        said = found.pop(kind.field, None)
        several = said if isinstance(said, list | tuple) else [] if said is None else [said]
        conditions += [_of_kind(each, kind) for each in several]
        if not kind.many and sum(isinstance(each, kind) for each in conditions) > 1:
            raise ValueError(f"{kind.field}: is given more than once")
    for each in conditions:
        if not isinstance(each, Condition):
            names = ", ".join(kind.__name__ for kind in KINDS.values())
            raise ValueError(f"conditions: must be of {names}")
    return found | ({"conditions": tuple(conditions)} if conditions else {})


def _of_kind(given: Any, kind: type[Condition]) -> Condition:
    if isinstance(given, dict):
        return kind(**given)
    if kind is ImageCondition and not isinstance(given, kind):
        return ImageCondition(given)
    if not isinstance(given, kind):
        raise ValueError(f"{kind.field}: must be of {kind.__name__}")
    return given
