"""The parts of a published checkpoint: whose tensor a key is. Needs no torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entracte.errors import CheckpointError

from .recognise import TAKE_BFLOAT16

CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")
ROOTS = ("model.diffusion_model.", "diffusion_model.")
PROJECTION = "text_embedding_projection."
DURATION_HEAD = "duration_head."

# How the transformer's own names begin.
TRANSFORMER = (
    "transformer_blocks.",
    *(
        f"{stream}{name}"
        for stream in ("", "audio_")
        for name in (
            "patchify_proj.",
            "proj_out.",
            "scale_shift_table",
            "adaln_single.",
            "prompt_adaln_single.",
            "caption_projection.",
        )
    ),
    "av_ca_",
    "keyframes_abs_pos_embedding",
)


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """A component's keys in the file, and its part of the header's config.

    prefix: of the keys. kept: what of the prefix the component's own names begin with.
    """

    component: str
    prefix: str
    config: str
    kept: str = ""


def _parts() -> Iterator[PublishedPart]:
    """All parts; a key belongs to the first whose prefix matches."""
    for root in ROOTS:
        for connector in CONNECTORS:
            yield PublishedPart("connectors", root + connector, "transformer", connector)
        yield PublishedPart("transformer", root, "transformer")
    yield PublishedPart("connectors", PROJECTION, "transformer", PROJECTION)
    yield PublishedPart("video_vae", "vae.", "vae")
    yield PublishedPart("audio_vae", "audio_vae.", "audio_vae")
    yield PublishedPart("vocoder", "vocoder.", "vocoder")
    yield PublishedPart("duration_head", DURATION_HEAD, "duration_head")
    # Files of the transformer alone often have no prefix.
    for connector in CONNECTORS:
        yield PublishedPart("connectors", connector, "transformer", connector)
    for name in TRANSFORMER:
        yield PublishedPart("transformer", name, "transformer", name)


PARTS = tuple(_parts())


def is_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether a header's config is that of any component in the published layout."""
    return any(part.config in config for part in PARTS)


def part_of(key: str) -> PublishedPart | None:
    """The part that a key belongs to; None for an unknown key."""
    return next((part for part in PARTS if key.startswith(part.prefix)), None)


def published_key(key: str) -> str:
    """What a key that has a part is called in the published file: with its whole prefix."""
    part = part_of(key)
    assert part is not None
    bare = part.kept + key.removeprefix(part.prefix)
    in_root = part.component == "transformer" or bare.startswith(CONNECTORS)
    return ROOTS[0] + bare if in_root else key


def components_of(keys: Iterable[str]) -> frozenset[str]:
    """The components that keys are of."""
    return frozenset(part.component for part in map(part_of, keys) if part is not None)


class Shaped(Protocol):
    @property
    def shape(self) -> Sequence[int]: ...


class Weights(Protocol):
    """A file of weights, or its header. quantised: in which format without a reader; None: none."""

    @property
    def path(self) -> Path: ...

    @property
    def quantised(self) -> str | None: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, Shaped]: ...


def full_keys(file: Weights) -> Mapping[str, str]:
    """What a file's keys are called where all of a model is in one file, by key.

    A file of one VAE, of the vocoder or of the text projection alone may lack their prefixes. Video
    has convolutions of three dimensions, and sound has none.
    """
    vae = "vae." if any(len(each.shape) == 5 for each in file.tensors.values()) else "audio_vae."
    is_vocoder = any(key.startswith(("bwe_generator.", "conv_pre.")) for key in file.tensors)

    def full(key: str) -> str:
        if is_vocoder:
            return f"vocoder.{key}"
        if key.startswith(("decoder.", "encoder.", "per_channel_statistics.")):
            return vae + key
        if key.startswith(("video_aggregate_embed.", "audio_aggregate_embed.", "aggregate_embed.")):
            return PROJECTION + key
        return key

    return {key: full(key) for key in file.tensors}


def require_readable(file: Weights) -> None:
    """Raise CheckpointError, by its name, for a file in a quantised format without a reader."""
    if file.quantised is not None:
        raise CheckpointError(
            f"{file.path} is quantised ({file.quantised}), which is not supported; {TAKE_BFLOAT16}"
        )
