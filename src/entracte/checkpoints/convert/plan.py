"""Which files a conversion writes, and what is in them; no weight is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from entracte.errors import CheckpointError
from entracte.models.formats import Format
from entracte.models.gemma import module_to_file
from entracte.models.registry import LTX_2_3, ModelVersion
from entracte.notices import Notice
from entracte.residency import Change

from ..diffusers_configs import is_diffusers_folder
from ..gemma_folder import STEM, is_gemma, open_gemma
from ..lora import ADAPTED, LoraFile, is_lora, open_lora, open_lora_file
from ..model_config import model_config
from ..model_files import ModelPaths, checkpoint_files
from ..named import expand
from ..parts import PARTS, PROJECTION, full_keys, part_of, published_key
from ..published import UNUSED, open_checkpoint, parameter_name
from ..quantised import said_in_header
from ..recognise import METADATA_MARK
from ..safetensors_file import SafetensorsFile
from ..shards import INDEX_SUFFIX, SUFFIX
from ..sources import ComponentSource, Located
from ..weights_file import WeightsFile
from ..write_safetensors import NewTensors, with_layers
from .weights import NewFormats, NewWeight, ReadChange, new_weight

# What a model is split into: the name of each file, and the components that it holds.
PIECES: Mapping[str, tuple[str, ...]] = {
    "transformer": ("transformer", "connectors"),
    "text_projection": ("text_projection",),
    "video_vae": ("video_vae",),
    "audio_vae": ("audio_vae", "vocoder"),
}

# What lies beside a text encoder's weights, and is copied.
BESIDE_GEMMA = ("*.json", "*.model", "*.jinja")


@dataclass(slots=True)
class NewFile:
    """A file to write.

    formats: of every weight, by key; None: plain numbers. said: what the header says of layers.
    """

    name: str
    tensors: list[NewTensors] = field(default_factory=list)
    formats: dict[str, Format | None] = field(default_factory=dict)
    said: dict[str, object] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, weight: NewWeight) -> None:
        """Add a weight, which is called so."""
        self.tensors.append(weight.tensors)
        self.formats[key] = weight.format
        if weight.said is not None:
            self.said[key.removesuffix(".weight")] = weight.said

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.tensors)


@dataclass(frozen=True, slots=True)
class Conversion:
    """out: the file; or the folder of all files, and of those that are copied into it."""

    out: Path
    files: tuple[NewFile, ...]
    copied: tuple[Path, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def to_folder(self) -> bool:
        return self.files[0].name != self.out.name

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.files)


def plan_conversion(
    inputs: Sequence[Path],
    out: Path,
    to: str | None = None,
    loras: Sequence[tuple[Path, float]] = (),
    partial_loras: bool = False,
    split: bool = False,
) -> Conversion:
    """Plan it from headers alone.

    inputs: the files of one model's checkpoint, or folders of them; or a text encoder's folder.
    out: the new file; with `split` and for a text encoder a folder.
    to: one of `WRITTEN` or `BFLOAT16`; None: weights stay as they are stored.
    loras: to merge in, in order, with their strengths. partial_loras: as far as they can be.

    Raises CheckpointError too, for what cannot be converted.
    """
    inputs = list(map(expand, inputs))
    for path in inputs:
        if is_diffusers_folder(path):
            raise CheckpointError(f"{path} is a diffusers folder; give files as they are published")
    if any(map(is_gemma, inputs)):
        if len(inputs) > 1 or loras or split or to is None:
            raise CheckpointError(
                f"a text encoder's folder is converted alone, into another format (`to`): {inputs}",
                settings=("to",),
            )
        return _text_encoder(inputs[0], out, to)
    files = checkpoint_files(ModelPaths(checkpoint=tuple(inputs)), None, distilled=False)
    for file in files:
        if is_lora(file):
            raise CheckpointError(f"{file.path} is a LoRA; give it as one of `lora`")
    if to is None and not loras and not split and len(files) == 1:
        raise CheckpointError(
            f"{files[0].path} would be copied as it is: say what to write (`to`), which `lora` to "
            "merge in, or `split`",
            settings=("to", "lora", "split"),
        )
    if not split and out.suffix != SUFFIX:
        raise CheckpointError(f"{out}: the new file's name must end with {SUFFIX}")
    return _Model(files, to, loras, partial_loras).conversion(out, split)


class _Model:
    """The files of one model's checkpoint, and what is made of them."""

    def __init__(
        self,
        files: Sequence[WeightsFile],
        to: str | None,
        loras: Sequence[tuple[Path, float]],
        partial_loras: bool,
    ) -> None:
        self._files = files
        self._version, components = open_checkpoint(files)
        self._config = model_config(files)[1]
        self._formats = {
            name: _formats_of(source, self._version, to) for name, source in components.items()
        }
        self._changes, self._notices = _changes(components, loras, partial_loras)

    def conversion(self, out: Path, split: bool) -> Conversion:
        found: dict[str, NewFile] = {}
        for file in self._files:
            said = _said(file)
            for key, full in full_keys(file).items():
                new = published_key(full)
                name = f"{self._stem}_{_piece(new)}{SUFFIX}" if split else out.name
                weight = self._weight(
                    new, Located(file, key), said.get(key.removesuffix(".weight"))
                )
                found.setdefault(name, NewFile(name)).add(new, weight)
        for made in found.values():
            made.metadata = with_layers(self._metadata(made), made.said)
        return Conversion(out, tuple(found.values()), notices=self._notices)

    @property
    def _stem(self) -> str:
        """The name of the file with the transformer, or of the first."""
        names = [file.path for file in self._files if "transformer" in file.config]
        return (names or [self._files[0].path])[0].stem

    def _weight(self, new: str, located: Located, said: object) -> NewWeight:
        part = part_of(new)
        assert part is not None  # `open_checkpoint` refuses others
        if new.startswith(UNUSED):
            return new_weight(new, located, "", NewFormats(None, None))
        name = parameter_name(new, part)
        changes = self._changes.get((part.component, name), ())
        return new_weight(new, located, name, self._formats[part.component], changes, said)

    def _metadata(self, made: NewFile) -> dict[str, str]:
        """The texts of all headers, the first's of several, and what of the config it needs."""
        parts = {part.config for key in made.formats if (part := part_of(key)) is not None}
        others = {part.config for part in PARTS} - parts
        config = {name: value for name, value in self._config.items() if name not in others}
        texts: dict[str, str] = {}
        for file in reversed(self._files):
            texts |= {key: text for key, text in file.metadata.items() if key != METADATA_MARK}
        return {**texts, "config": json.dumps(config)}


def _formats_of(source: ComponentSource, version: ModelVersion, to: str | None) -> NewFormats:
    """The vocoder and the like, whose dtype is fixed, keep that of the file."""
    held = None if source.name in version.fixed_dtypes else torch.bfloat16
    blocks = version.blocks.get(source.name)
    if blocks is None:
        return NewFormats(to, held)
    return NewFormats(to, held, blocks, source.block_count(blocks))


def _piece(key: str) -> str:
    """The piece that a key of the published file belongs to."""
    if key.startswith(PROJECTION):
        return "text_projection"
    part = part_of(key)
    assert part is not None  # `open_checkpoint` refuses others
    return next(name for name, components in PIECES.items() if part.component in components)


def _said(file: WeightsFile) -> dict[str, object]:
    """What a file's header says of its layers."""
    if not isinstance(file, SafetensorsFile):
        return {}
    return dict(said_in_header(file.path, file.stored, file.metadata))


def _changes(
    components: Mapping[str, ComponentSource], loras: Sequence[tuple[Path, float]], partial: bool
) -> tuple[dict[tuple[str, str], list[ReadChange]], tuple[Notice, ...]]:
    """What LoRAs change, by component and parameter, in order. Raises LoraError."""
    shapes = {
        name: {key: located.info.shape for key, located in components[name].tensors.items()}
        for name in ADAPTED
        if name in components
    }
    found: dict[tuple[str, str], list[ReadChange]] = {}
    notices: list[Notice] = []
    for path, strength in loras:
        lora = open_lora(open_lora_file(path), shapes, partial)
        notices += lora.notices
        for component, changes in lora.changes.items():
            for parameter, change in changes.items():
                read = _Change(lora, component, parameter, change, strength)
                found.setdefault((component, parameter), []).append(read.read)
    return found, tuple(notices)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a LoRA changes in one parameter, before it is read."""

    lora: LoraFile
    component: str
    parameter: str
    change: Change
    strength: float

    def read(self) -> tuple[Change, float]:
        tensors = {}
        for part, size in self.change.tensors.items():
            tensors[part] = torch.empty(size.shape, dtype=size.dtype)
            self.lora.read(self.component, self.parameter, part, tensors[part])
        return self.change.over(tensors), self.strength


def _text_encoder(folder: Path, out: Path, to: str) -> Conversion:
    source = open_gemma(folder)
    formats, made = _formats_of(source, LTX_2_3, to), NewFile(f"{STEM}{SUFFIX}")
    for name, located in source.tensors.items():
        new = module_to_file(name)
        made.add(new, new_weight(new, located, name, formats))
    made.metadata = with_layers({"format": "pt"}, made.said)
    copied = {path for pattern in BESIDE_GEMMA for path in folder.glob(pattern)}
    beside = sorted(path for path in copied if not path.name.endswith(INDEX_SUFFIX))
    return Conversion(out, (made,), tuple(beside))
