"""LoRAs by name, from a folder that the operator chose."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from entracte.checkpoints.adapter_folder import lora_path
from entracte.errors import LoraError, RequestError

SUFFIX = ".safetensors"
# Files that may be LoRAs, in formats that are not read.
OTHER_FORMATS = (".bin", ".ckpt", ".gguf", ".pt", ".pth")

MAX_DEPTH = 8
MAX_NAME = 200


class LoraFolder:
    """The LoRAs of a folder and its subfolders, looked up each time; None has none.

    The name of a LoRA is its path in the folder without `.safetensors`: `style`, `people/Jo (v2)`.
    A folder saved by PEFT or diffusers is one LoRA. Hidden files are ignored; files that look like
    LoRAs but cannot be used are logged once.
    """

    def __init__(self, folder: Path | None, log: FilteringBoundLogger) -> None:
        self._folder = folder
        self._log = log
        self._told: set[Path] = set()

    def paths(self) -> dict[str, Path]:
        """Every LoRA's file or folder, by name, sorted."""
        if self._folder is None:
            return {}
        found: dict[str, Path] = {}
        for path in self._candidates(self._folder, 0):
            name = unicodedata.normalize("NFC", path.relative_to(self._folder).as_posix())
            name = name.removesuffix(SUFFIX)
            if not name.isprintable() or len(name) > MAX_NAME:
                words = f"its name has over {MAX_NAME} signs, or one that is not printable"
                self._tell(path, words)
            elif name in found:
                self._tell(path, f"{found[name].name} has the same name")
            else:
                found[name] = path
        return dict(sorted(found.items()))

    def sizes(self) -> dict[str, int]:
        """Bytes of every LoRA's file, by name."""
        found = {}
        for name, path in self.paths().items():
            with suppress(OSError, LoraError):  # removed just now
                found[name] = lora_path(path).stat().st_size
        return found

    def _candidates(self, folder: Path, depth: int) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._tell(folder, f"it cannot be read: {error.strerror}")
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._within(path, depth)
            elif entry.is_dir():
                self._tell(path, "it is a link to a folder")
            elif entry.name.endswith(SUFFIX):
                if entry.is_file():
                    yield path
                else:
                    self._tell(path, "it is not a file")
            elif path.suffix in OTHER_FORMATS:
                self._tell(path, f"{path.suffix} files are not read; save it as {SUFFIX}")

    def _within(self, folder: Path, depth: int) -> Iterator[Path]:
        try:
            lora_path(folder)
        except LoraError:
            if depth < MAX_DEPTH:
                yield from self._candidates(folder, depth + 1)
            else:
                self._tell(folder, f"it is over {MAX_DEPTH} folders deep")
        else:
            yield folder

    def _tell(self, path: Path, reason: str) -> None:
        if path not in self._told:
            self._told.add(path)
            file = path.name if self._folder is None else str(path.relative_to(self._folder))
            self._log.warning("not offered as a LoRA", file=ascii(file), reason=reason)


def require_folder(folder: Path | None) -> None:
    """Raise RequestError if the folder does not exist."""
    if folder is not None and not folder.is_dir():
        raise RequestError(f"`lora_folder` {folder} is not a folder", settings=("lora_folder",))
