"""Where a video goes: an mp4 file, or a folder of frames."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch import Tensor

from entracte.errors import MediaError
from entracte.files import require_writable, write_atomically

from .frame_folder import FrameFolderWriter
from .mp4 import open_mp4
from .tags import NO_TAGS


def _is_mp4(path: Path) -> bool:
    return path.suffix.lower() == ".mp4"


class FrameWriter(Protocol):
    """Takes frames in order."""

    def write(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8."""


def check_output(path: Path) -> None:
    """Raise MediaError unless a video can be written to `path`."""
    if _is_mp4(path):
        require_writable(path)
    elif path.suffix and not path.is_dir():
        raise MediaError(
            f"{path}: videos are written as .mp4, or into an existing folder as PNG and WAV"
        )
    elif not path.is_dir():
        raise MediaError(f"folder {path} does not exist; make it first, or name an .mp4 file")
    elif not os.access(path, os.W_OK | os.X_OK):
        raise MediaError(f"folder {path} cannot be written to")


@contextmanager
def open_output(
    path: Path,
    frame_rate: float,
    sound: Tensor,
    sample_rate: int,
    tags: Mapping[str, str] = NO_TAGS,
) -> Iterator[FrameWriter]:
    """A writer for `path`, whose output appears, complete, once the block ends without an error.

    sound: [2, samples] float32 in -1..1; padded with silence to the picture's length. tags: of an
    mp4. Raises MediaError if the system refuses to write, or the encoder to encode.
    """
    if _is_mp4(path):
        with (
            write_atomically(path) as part,
            open_mp4(part, frame_rate, sound, sample_rate, tags) as writer,
        ):
            yield writer
        return
    try:
        with FrameFolderWriter(path, frame_rate, sound, sample_rate) as folder:
            yield folder
    except OSError as error:
        raise MediaError(f"cannot write into {path}: {error.strerror or error}") from error
