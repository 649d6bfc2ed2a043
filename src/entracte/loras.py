"""The LoRA files of an open model: opened once, matched to its transformer."""

import logging
from pathlib import Path

from entracte.checkpoints.lora import LoraFile, open_lora
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import ComponentSource, TensorFile
from entracte.residency.merge import Changes

logger = logging.getLogger(__name__)


class Loras:
    """LoRAs by path. Opening one reads its header; the device manager reads the factors."""

    def __init__(self, transformer: ComponentSource) -> None:
        self._shapes = {name: located.info.shape for name, located in transformer.tensors.items()}
        self._files: dict[Path, LoraFile] = {}
        self._factors: dict[str, Changes] = {}

    def open(self, path: Path, file: TensorFile | None = None) -> LoraFile:
        """The LoRA at a path; `file` where it is open already. Raises CheckpointError."""
        if path not in self._files:
            lora = open_lora(file or SafetensorsFile(path), self._shapes)
            if lora.unmatched:
                logger.warning(
                    "%d keys of a LoRA fit nothing in the transformer and are left out, the first "
                    "%s; %d modules are adapted",
                    len(lora.unmatched),
                    lora.unmatched[0],
                    len(lora.pairs),
                )
            self._files[path] = lora
        return self._files[path]

    def factors(self, name: str) -> Changes:
        """The factors of the LoRA at the path `name`, by parameter, as views of the mapped file."""
        if name not in self._factors:
            self._factors[name] = self.open(Path(name)).changes()
        return self._factors[name]
