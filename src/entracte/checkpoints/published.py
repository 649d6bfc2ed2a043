"""The published layout: everything in one safetensors file, or the same keys in several."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entracte.errors import CheckpointError
from entracte.models import audio_vae, upsampler, video_vae, vocoder
from entracte.models.registry import ModelVersion

from .recognise import TAKE_BFLOAT16
from .sources import ComponentSource, Located, TensorFile
from .versions import model_version

CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")

# Statistics of training that no part of the model reads.
UNUSED = ("vae.per_channel_statistics.channel", "vae.per_channel_statistics.mean-of-stds")


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """A component's keys in the file, and its part of the header's config."""

    component: str
    prefix: str
    config: str
    rename: Callable[[str], str]


def _same(key: str) -> str:
    return key


def _parts() -> Iterator[PublishedPart]:
    """All parts; a key belongs to the first whose prefix matches."""
    for root in ("model.diffusion_model.", "diffusion_model."):
        for connector in CONNECTORS:
            yield PublishedPart(
                "connectors", root + connector, "transformer", f"{connector}{{}}".format
            )
        yield PublishedPart("transformer", root, "transformer", _same)
    projection = "text_embedding_projection."
    yield PublishedPart("connectors", projection, "transformer", f"{projection}{{}}".format)
    yield PublishedPart("video_vae", "vae.", "vae", video_vae.file_to_module)
    yield PublishedPart("audio_vae", "audio_vae.", "audio_vae", audio_vae.file_to_module)
    yield PublishedPart("vocoder", "vocoder.", "vocoder", vocoder.file_to_module)


PARTS = tuple(_parts())


def is_checkpoint(file: TensorFile) -> bool:
    """Whether a file holds any component in the published layout."""
    return any(part.config in file.config() for part in PARTS)


def part_of(key: str) -> PublishedPart | None:
    """The part that a key belongs to; None for an unknown key."""
    return next((part for part in PARTS if key.startswith(part.prefix)), None)


def components_of(file: TensorFile) -> frozenset[str]:
    """The components that a file has tensors of."""
    return frozenset(part.component for part in map(part_of, file.tensors) if part is not None)


def require_plain(file: TensorFile) -> None:
    """Raise CheckpointError, by the format's name, for a file with quantised weights."""
    if file.quantised is not None:
        raise CheckpointError(
            f"{file.path} is quantised ({file.quantised}), which is not supported yet; "
            f"{TAKE_BFLOAT16}"
        )


def open_checkpoint(files: Sequence[TensorFile]) -> tuple[ModelVersion, dict[str, ComponentSource]]:
    """The version and the components of one model's files; no weight is read.

    Of several files, only one needs to have the config. Raises CheckpointError for files of another
    model or version, quantised ones, unknown or doubled tensors.
    """
    config: dict[str, Any] = {}
    version: ModelVersion | None = None
    for file in files:
        require_plain(file)
        if is_checkpoint(file):
            found = model_version(file.metadata, file.config(), file.path)
            version = version or found
            config.update(file.config())
    for file in files:
        if not is_checkpoint(file) and (not config or not components_of(file)):
            raise CheckpointError(f"{file.path} is not an LTX checkpoint: {_what_it_is(file)}")
    assert version is not None  # or every file was refused

    tensors: dict[str, dict[str, Located]] = {}
    configs: dict[str, str] = {}
    for file in files:
        for key in file.tensors:
            if key.startswith(UNUSED):
                continue
            part = part_of(key)
            if part is None:
                raise CheckpointError(
                    f"{file.path} holds {key}, which LTX-{version.name} does not have"
                )
            name = part.rename(key.removeprefix(part.prefix))
            located = tensors.setdefault(part.component, {})
            if name in located:
                raise CheckpointError(f"{key} is in {located[name].file.path} and in {file.path}")
            located[name] = Located(file, key)
            configs[part.component] = part.config
    return version, {
        name: ComponentSource(name, _part_of_config(config, configs[name], located), located)
        for name, located in tensors.items()
    }


def _part_of_config(
    config: Mapping[str, Any], name: str, located: Mapping[str, Located]
) -> Mapping[str, Any]:
    found = config.get(name, {})
    if not isinstance(found, dict):
        path = next(iter(located.values())).file.path
        raise CheckpointError(f"{path}: the part {name} of its config is not a JSON object")
    return found


def is_upsampler(file: TensorFile) -> bool:
    return "spatial_upsample" in file.config()


def open_upsampler(file: TensorFile) -> ComponentSource:
    """Open the latent upsampler; raises CheckpointError if it is not one, or of the wrong kind."""
    if not is_upsampler(file):
        raise CheckpointError(f"{file.path} is not a latent upsampler: {_what_it_is(file)}")
    config = file.config()
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
