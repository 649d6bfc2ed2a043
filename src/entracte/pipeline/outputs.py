"""What a run is to make."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from entracte.errors import MediaError
from entracte.files import write_atomically
from entracte.media.background_writer import BackgroundWriter

from .preview import PreviewCallback


@dataclass(frozen=True, slots=True)
class Outputs:
    """The wanted outputs of a run. preview: called with a small picture at every step.

    video: has all frames when the run is over, and writes on. tagged: with what it was made from.
    """

    video: BackgroundWriter | None
    latents_path: Path | None
    keep_frames: bool
    preview: PreviewCallback | None = None
    tagged: bool = True


@dataclass(frozen=True, slots=True)
class Generated:
    """The outputs of a run, as in `Result`."""

    frames: Tensor | None
    audio: Tensor
    sample_rate: int
    latents: dict[str, Tensor]


def save_latents(path: Path, latents: dict[str, Tensor]) -> None:
    """Write a safetensors file. Raises MediaError."""
    try:
        with write_atomically(path) as part:
            save_file(latents, part)
    except SafetensorError as error:
        raise MediaError(f"cannot write {path}: {error}") from error
