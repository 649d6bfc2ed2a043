"""What a file or folder is, in words and numbers, from headers alone."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from entracte.errors import CheckpointError

from .diffusers_layout import is_diffusers_folder, open_diffusers
from .gemma_folder import is_gemma, open_gemma
from .lora import is_lora
from .lora.describe import describe_lora
from .published import is_checkpoint, is_upsampler, open_checkpoint
from .safetensors_file import SafetensorsFile
from .sources import ComponentSource, Located


@dataclass(frozen=True, slots=True)
class Part:
    """One component of a file."""

    name: str
    tensors: int
    parameters: int
    nbytes: int
    dtypes: list[str]


@dataclass(frozen=True, slots=True)
class Description:
    """What `entracte inspect` says of one file or folder."""

    path: Path
    kind: str
    version: str | None
    parts: list[Part]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def describe_path(path: Path) -> list[Description]:
    """Describe a file; or a model's folder; or every model file and folder within a folder.

    Raises CheckpointError where nothing is recognised.
    """
    if not path.is_dir():
        return [_describe_file(path)]
    if is_diffusers_folder(path):
        components = open_diffusers(path)
        parts = [_component(component) for component in components.values()]
        return [Description(path, "diffusers folder", "2.3", parts)]
    if (path / "config.json").is_file():
        return [_describe_gemma(path)]
    described = [_describe_file(file) for file in sorted(path.glob("*.safetensors"))]
    folders = sorted(config.parent for config in path.glob("*/config.json"))
    described += [_describe_gemma(folder) for folder in folders if is_gemma(folder)]
    if not described:
        raise CheckpointError(f"{path} holds no model files")
    return described


def _describe_file(path: Path) -> Description:
    file = SafetensorsFile(path)
    every = [Located(file, key) for key in file.tensors]
    if is_checkpoint(file):
        version, components = open_checkpoint([file])
        parts = [_component(component) for component in components.values()]
        return Description(path, "checkpoint", version, parts)
    if is_upsampler(file):
        asked = ("spatial_upsample", "temporal_upsample", "spatial_scale")
        facts = {name: value for name, value in file.config().items() if name in asked}
        return Description(path, "latent upsampler", None, [_part("upsampler", every)], facts)
    if is_lora(file):
        kind, facts = describe_lora(file)
        return Description(path, kind, None, [_part("tensors", every)], facts)
    return Description(path, "other safetensors file", None, [_part("tensors", every)])


def _describe_gemma(root: Path) -> Description:
    source = open_gemma(root)
    layers = source.config["text_config"]["num_hidden_layers"]
    return Description(root, "Gemma 3 folder", None, [_component(source)], {"layers": layers})


def _component(source: ComponentSource) -> Part:
    return _part(source.name, source.tensors.values())


def _part(name: str, tensors: Iterable[Located]) -> Part:
    infos = [located.info for located in tensors]
    return Part(
        name,
        len(infos),
        sum(info.parameters for info in infos),
        sum(info.nbytes for info in infos),
        sorted({str(info.dtype).removeprefix("torch.") for info in infos}),
    )
