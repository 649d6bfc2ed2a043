"""Describes files and folders from headers alone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from entracte.errors import CheckpointError

from .adapter_folder import is_adapter_folder, lora_path
from .diffusers_configs import is_diffusers_folder
from .diffusers_layout import open_diffusers
from .folder import (
    Folder,
    WeightFiles,
    choose_checkpoint,
    choose_distilled_lora,
    choose_upsampler,
    scan,
)
from .gemma_folder import open_gemma
from .lora import is_lora
from .lora.describe import describe_lora
from .model_config import is_model_file
from .named import expand, is_folder
from .published import is_upsampler, open_checkpoint
from .shards import INDEX_SUFFIX, shards_of
from .sources import ComponentSource, Located
from .weights_file import WeightsFile, open_weights


@dataclass(frozen=True, slots=True)
class DescribedPart:
    """One component of a file."""

    name: str
    tensors: int
    parameters: int
    nbytes: int
    dtypes: list[str]


@dataclass(frozen=True, slots=True)
class Description:
    """What `entracte inspect` prints for a file or folder."""

    path: Path
    kind: str
    version: str | None
    parts: list[DescribedPart]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def describe_path(path: Path) -> list[Description]:
    """Describe a file; or a model's folder; or every model file and folder within a folder.

    Raises CheckpointError if nothing is recognised.
    """
    path = expand(path)
    if path.name.endswith(INDEX_SUFFIX):
        return [_describe_weights(WeightFiles(tuple(map(open_weights, shards_of(path)))))]
    if not is_folder(path):
        return [_describe_file(open_weights(path))]
    if is_adapter_folder(path):
        return [_describe_file(open_weights(lora_path(path)))]
    if is_diffusers_folder(path):
        version, components = open_diffusers(path)
        parts = [_component(component) for component in components.values()]
        return [Description(path, "diffusers folder", version.name, parts)]
    if (path / "config.json").is_file():
        return [_describe_gemma(path)]
    found = scan(path)
    described = [_describe_weights(each) for each in found.checkpoints]
    described += [_describe_file(file) for file in (*found.upsamplers, *found.loras, *found.others)]
    described += [_describe_gemma(folder) for folder in found.gemmas]
    described += [
        Description(file, "skipped", None, [], {"reason": reason})
        for file, reason in found.unreadable.items()
    ]
    if not described:
        raise CheckpointError(f"{path} holds no model files")
    if found.checkpoints:
        described.insert(0, _describe_choice(found))
    return described


def _describe_choice(found: Folder) -> Description:
    """What `--model` takes of a folder."""
    choices: Mapping[str, Callable[[], Iterable[WeightsFile | None]]] = {
        "checkpoint": lambda: choose_checkpoint(found, distilled=False),
        "checkpoint of the distilled pipeline": lambda: choose_checkpoint(found, distilled=True),
        "upsampler": lambda: [choose_upsampler(found)],
        "distilled LoRA": lambda: [choose_distilled_lora(found)],
    }
    facts = {}
    for what, choose in choices.items():
        try:
            facts[what] = _names(filter(None, choose())) or "none"
        except CheckpointError as error:
            facts[what] = str(error)
    return Description(found.path, "model folder", None, [], facts)


def _names(files: Iterable[WeightsFile]) -> str:
    return ", ".join(file.path.name for file in files)


def _describe_weights(weights: WeightFiles) -> Description:
    first = weights.files[0]
    if len(weights.files) == 1:
        return _describe_file(first)
    version, components = open_checkpoint(weights.files)
    parts = [_component(component) for component in components.values()]
    facts = {"files": _names(weights.files)}
    return Description(first.path, "checkpoint in shards", version.name, parts, facts)


def _describe_file(file: WeightsFile) -> Description:
    path = file.path
    every = [Located(file, key) for key in file.tensors]
    if file.quantised is not None:
        kind = f"quantised file ({file.quantised}), which is not supported"
        return Description(path, kind, None, [_part("tensors", every)])
    if is_upsampler(file):
        asked = ("spatial_upsample", "temporal_upsample", "spatial_scale")
        facts = {name: value for name, value in file.config.items() if name in asked}
        return Description(path, "latent upsampler", None, [_part("upsampler", every)], facts)
    if is_model_file(file):
        version, components = open_checkpoint([file])
        parts = [_component(component) for component in components.values()]
        return Description(path, "checkpoint", version.name, parts)
    if is_lora(file):
        kind, facts = describe_lora(file)
        return Description(path, kind, None, [_part("tensors", every)], facts)
    return Description(path, "other file", None, [_part("tensors", every)])


def _describe_gemma(root: Path) -> Description:
    source = open_gemma(root)
    layers = source.config["text_config"]["num_hidden_layers"]
    return Description(root, "Gemma 3 folder", None, [_component(source)], {"layers": layers})


def _component(source: ComponentSource) -> DescribedPart:
    return _part(source.name, source.tensors.values())


def _part(name: str, tensors: Iterable[Located]) -> DescribedPart:
    infos = [located.info for located in tensors]
    return DescribedPart(
        name,
        len(infos),
        sum(info.parameters for info in infos),
        sum(info.nbytes for info in infos),
        sorted({info.kind for info in infos}),
    )
