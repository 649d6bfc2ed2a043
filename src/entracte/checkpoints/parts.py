"""The parts of a published checkpoint: whose tensor a key is. Needs no torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entracte.errors import CheckpointError

from .recognise import TAKE_BFLOAT16

CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")


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
    for root in ("model.diffusion_model.", "diffusion_model."):
        for connector in CONNECTORS:
            yield PublishedPart("connectors", root + connector, "transformer", connector)
        yield PublishedPart("transformer", root, "transformer")
    projection = "text_embedding_projection."
    yield PublishedPart("connectors", projection, "transformer", projection)
    yield PublishedPart("video_vae", "vae.", "vae")
    yield PublishedPart("audio_vae", "audio_vae.", "audio_vae")
    yield PublishedPart("vocoder", "vocoder.", "vocoder")


PARTS = tuple(_parts())


def is_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether a header's config is that of any component in the published layout."""
    return any(part.config in config for part in PARTS)


def part_of(key: str) -> PublishedPart | None:
    """The part that a key belongs to; None for an unknown key."""
    return next((part for part in PARTS if key.startswith(part.prefix)), None)


def components_of(keys: Iterable[str]) -> frozenset[str]:
    """The components that keys are of."""
    return frozenset(part.component for part in map(part_of, keys) if part is not None)


class Weights(Protocol):
    """A file of weights, or its header. quantised: how, in words; None where nothing says so."""

    @property
    def path(self) -> Path: ...

    @property
    def quantised(self) -> str | None: ...


def require_plain(file: Weights) -> None:
    """Raise CheckpointError, by the format's name, for a file with quantised weights."""
    if file.quantised is not None:
        raise CheckpointError(
            f"{file.path} is quantised ({file.quantised}), which is not supported yet; "
            f"{TAKE_BFLOAT16}"
        )
