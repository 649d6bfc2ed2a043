"""The LoRA files of an open model: opened on demand, and again when they have changed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from torch import Tensor

from entracte.checkpoints.lora import ADAPTED, LoraFile, open_lora, open_lora_file
from entracte.checkpoints.sources import ComponentSource, TensorFile
from entracte.errors import LoraError
from entracte.residency import AdapterSource, Changes

from .cache import Cache

logger = logging.getLogger(__name__)

# LoRAs kept open besides those that the device manager uses, one file each.
KEPT_OPEN = 64

# Files that belong to a LoRA in a folder.
FOLDER_PATTERNS = ("*.safetensors", "*.json")
CONFIG = "adapter_config.json"

# Suffix of the name of a partially applied adapter.
PARTIAL = " partial"


@dataclass(frozen=True, slots=True)
class OpenLora:
    """A LoRA and its name as an adapter: its path and the identity of its file."""

    name: str
    file: LoraFile

    def changes(self, component: str) -> Changes:
        """What it changes in a component, without the numbers; may be empty."""
        return self.file.changes.get(component, {})


@dataclass(frozen=True, slots=True)
class _LoraAdapter:
    """A LoRA as an adapter of one component; see `AdapterSource`."""

    lora: OpenLora
    component: str

    @property
    def changes(self) -> Changes:
        return self.lora.changes(self.component)

    def read(self, parameter: str, part: str, out: Tensor) -> None:
        self.lora.file.read(self.component, parameter, part, out)


class Loras:
    """LoRAs by path. Opening one reads its header; the device manager reads the factors.

    A file that was changed or replaced (by device, inode, size and time of change) is another
    adapter, with another name. Thread-safe.
    """

    def __init__(self, components: Mapping[str, ComponentSource]) -> None:
        self._shapes = {
            name: {key: located.info.shape for key, located in components[name].tensors.items()}
            for name in ADAPTED
            if name in components
        }
        self._opened: Cache[tuple[Path, bool], OpenLora] = Cache(KEPT_OPEN)
        self._lock = Lock()

    def open(self, path: Path, file: TensorFile | None = None, partial: bool = False) -> OpenLora:
        """The LoRA at a path as it is now. file: a LoRA that is not on disk.

        partial: leave out what of it cannot be applied. Raises LoraError.
        """
        name = f"{path}@{_identity(path)}{PARTIAL if partial else ''}"

        def make() -> OpenLora:
            opened = open_lora_file(path) if file is None or path.exists() else file
            lora = open_lora(opened, self._shapes, partial)
            for notice in lora.notices:
                logger.warning("LoRA %s: %s", notice.path.name, notice.message)
            return OpenLora(name, lora)

        key = path, partial
        with self._lock:
            if self._opened.get(key, make).name != name:
                self._opened.drop(key)
            return self._opened.get(key, make)

    def adapter(self, component: str, name: str) -> AdapterSource:
        """What a LoRA, by name, changes in a component. Raises LoraError if its file changed."""
        path = Path(name.rpartition("@")[0])
        lora = self.open(path, partial=name.endswith(PARTIAL))
        if lora.name != name:
            raise LoraError(path, "it was changed or replaced just now; try again")
        return _LoraAdapter(lora, component)


def _identity(path: Path) -> str:
    """Identifies a file, or the files of a folder, to notice changes."""
    files = [path, path.parent / CONFIG]
    if path.is_dir():
        files = sorted(each for pattern in FOLDER_PATTERNS for each in path.glob(pattern))
    return " ".join(filter(None, map(_identity_of_file, files)))


def _identity_of_file(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
