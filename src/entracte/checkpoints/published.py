"""The published layout: everything in one safetensors file, or the same keys in several."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from entracte.errors import CheckpointError
from entracte.models import audio_vae, upsampler, video_vae, vocoder
from entracte.models.registry import VERSIONS, ModelVersion

from .model_config import model_config
from .parts import (
    PublishedPart,
    components_of,
    full_keys,
    is_checkpoint,
    part_of,
    require_readable,
)
from .sources import ComponentSource, Located, TensorFile

# Statistics of training that no part of the model reads.
UNUSED = ("vae.per_channel_statistics.channel", "vae.per_channel_statistics.mean-of-stds")

# Components whose parameters have other names than the tensors of the file.
RENAMES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "video_vae": video_vae.file_to_module,
        "audio_vae": audio_vae.file_to_module,
        "vocoder": vocoder.file_to_module,
    }
)


def parameter_name(key: str, part: PublishedPart) -> str:
    """What a component calls the parameter that is stored under a key of its part."""
    name = part.kept + key.removeprefix(part.prefix)
    rename = RENAMES.get(part.component)
    return name if rename is None else rename(name)


def open_checkpoint(files: Sequence[TensorFile]) -> tuple[ModelVersion, dict[str, ComponentSource]]:
    """The version and the components of one model's files; no weight is read.

    Files of another model or version, in formats without a reader, and unknown or doubled tensors
    raise CheckpointError.
    """
    for file in files:
        require_readable(file)
        if not is_checkpoint(file.config) and not components_of(full_keys(file).values()):
            raise CheckpointError(f"{file.path} is not an LTX checkpoint: {_what_it_is(file)}")
    name, config = model_config(files)
    tensors: dict[str, dict[str, Located]] = {}
    configs: dict[str, str] = {}
    for file in files:
        for key, full in full_keys(file).items():
            if full.startswith(UNUSED):
                continue
            part = part_of(full)
            if part is None:
                raise CheckpointError(f"{file.path} holds {key}, which LTX-{name} does not have")
            parameter = parameter_name(full, part)
            located = tensors.setdefault(part.component, {})
            if parameter in located:
                first = located[parameter].file.path
                raise CheckpointError(f"{key} is in {first} and in {file.path}")
            located[parameter] = Located(file, key)
            configs[part.component] = part.config
    return VERSIONS[name], {
        component: ComponentSource(component, config.get(configs[component], {}), located)
        for component, located in tensors.items()
    }


def is_upsampler(file: TensorFile) -> bool:
    return "spatial_upsample" in file.config


def open_upsampler(file: TensorFile) -> ComponentSource:
    """Open the latent upsampler; raises CheckpointError if it is not one, or of the wrong kind."""
    if not is_upsampler(file):
        raise CheckpointError(f"{file.path} is not a latent upsampler: {_what_it_is(file)}")
    config = file.config
    try:
        upsampler.check_kind(config)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from None
    tensors = {upsampler.file_to_module(key): Located(file, key) for key in file.tensors}
    return ComponentSource("upsampler", config, tensors)


def _what_it_is(file: TensorFile) -> str:
    first = next(iter(file.tensors), None)
    if first is None:
        return "it holds no tensors"
    return f"its header has no LTX config, and its {len(file.tensors):,} tensors begin with {first}"
