"""A LoRA file matched to a model, before any factor is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from entracte.errors import CheckpointError, LoraError
from entracte.notices import Notice
from entracte.residency import Change, Changes

from ..adapter_folder import lora_path
from ..adapter_keys import QUANTISED
from ..safetensors_file import SafetensorsFile
from ..sources import TensorFile
from .changes import Changed, GroupReader
from .config import read_settings
from .names import Names
from .parts import TensorSlice
from .sorting import first_of, sort_keys

ParameterShapes = Mapping[str, Mapping[str, tuple[int, ...]]]

# The components that LoRAs may change.
ADAPTED = ("transformer", "connectors")

# Metadata of LoRAs that were trained with a reference video beside the prompt (IC-LoRAs).
REFERENCE = re.compile(r"reference_\w*factor")
DOWNSCALE, TEMPORAL_SCALE = "reference_downscale_factor", "reference_temporal_scale_factor"
MAX_SCALE = 64


@dataclass(frozen=True, slots=True)
class ReferenceScale:
    """How much smaller than the video the reference of an IC-LoRA is.

    downscale: in height and width. temporal: of its frames after the first, one in so many is used.
    """

    downscale: int = 1
    temporal: int = 1


WHOLE = ReferenceScale()


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA of which no factor is read yet.

    changes: by component and parameter; their tensors are on the meta device.
    notices: warnings for the user, such as what is left out.
    reference: of an IC-LoRA whose header says so.
    """

    path: Path
    changes: Mapping[str, Changes]
    notices: tuple[Notice, ...]
    _parts: Mapping[str, Mapping[str, Mapping[str, TensorSlice]]]
    reference: ReferenceScale | None = None

    def read(self, component: str, parameter: str, part: str, out: Tensor) -> None:
        """Read one tensor of a change into `out`, host memory of its shape.

        Raises LoraError for NaN and infinities, and CheckpointError if the file cannot be read or
        was changed since it was opened.
        """
        self._parts[component][parameter][part].read(out)


def open_lora(file: TensorFile, shapes: ParameterShapes, partial: bool = False) -> LoraFile:
    """Match a LoRA to a model's parameters, of every component that it may change.

    shapes: of parameters, by component (of `ADAPTED`). partial: leave out what cannot be applied.
    Raises LoraError if it is not a LoRA, does not fit, or cannot be applied as a whole.
    """
    names = Names(shapes)
    keys = sort_keys(file, names)
    if not keys.groups:
        raise LoraError(file.path, _nothing(keys.complaint() if keys.others else "", file))
    if QUANTISED in keys.others and _has_bytes(file):
        raise LoraError(file.path, keys.complaint())
    if keys.others and not partial:
        raise LoraError(file.path, keys.complaint(), partly=True)
    settings, words = read_settings(file)
    found: dict[tuple[str, str], tuple[str, Changed]] = {}
    overruling: list[str] = []
    for group in keys.groups:
        reader = GroupReader(
            group,
            settings.get(group.modules[0].component),
            names.parameter,
            lambda component, parameter: shapes[component][parameter],
        )
        for changed in reader.read():
            place = changed.component, changed.parameter
            if place in found:
                both = f"{found[place][0]} and {group.name}"
                raise LoraError(file.path, f"{both} both change {changed.parameter}")
            found[place] = group.name, changed
        overruling += reader.overruling
    notices = [Notice(file.path, each) for each in words]
    if overruling:
        message = f"other alphas than in its configuration are used: {first_of(overruling)}"
        notices.append(Notice(file.path, message, tuple(overruling)))
    if keys.text_encoder:
        shown = first_of(keys.text_encoder)
        message = f"{len(keys.text_encoder):,} keys of a text encoder are left out: {shown}"
        notices.append(Notice(file.path, message, keys.text_encoder))
    if keys.others:
        notices.append(Notice(file.path, f"{keys.complaint()}. They are left out", keys.left_out))
    changes: dict[str, dict[str, Change]] = {component: {} for component in shapes}
    parts: dict[str, dict[str, Mapping[str, TensorSlice]]] = {component: {} for component in shapes}
    for _, changed in found.values():
        changes[changed.component][changed.parameter] = changed.change
        parts[changed.component][changed.parameter] = changed.parts
    return LoraFile(file.path, changes, tuple(notices), parts, _reference(file))


def _reference(file: TensorFile) -> ReferenceScale | None:
    if not any(REFERENCE.fullmatch(name) for name in file.metadata):
        return None
    found = []
    for name in (DOWNSCALE, TEMPORAL_SCALE):
        said = file.metadata.get(name, "1").strip().removesuffix(".0")
        if not (said.isascii() and said.isdecimal() and 1 <= int(said) <= MAX_SCALE):
            raise LoraError(
                file.path, f"its {name} is {said[:20]!r}, not a whole number of 1 to {MAX_SCALE}"
            )
        found.append(int(said))
    return ReferenceScale(*found)


def open_lora_file(path: Path) -> SafetensorsFile:
    """The file of a LoRA, or of a PEFT or diffusers folder of one. Raises LoraError."""
    file = lora_path(path)
    try:
        return SafetensorsFile(file)
    except CheckpointError as error:
        raise LoraError(path, str(error).replace(str(file), "the file")) from None


def _has_bytes(file: TensorFile) -> bool:
    """Whether the type may need a scale to have a meaning."""
    infos = file.tensors.values()
    return any(info.dtype.itemsize == 1 and info.converts for info in infos)


def _nothing(complaint: str, file: TensorFile) -> str:
    if not complaint:
        return f"all of its {len(file.tensors):,} keys are of a text encoder"
    return f"{complaint}. Is it for another model?"
