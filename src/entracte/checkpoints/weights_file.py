"""Opens a file of weights in whichever container it is."""

from pathlib import Path

from .gguf_file import GgufFile
from .gguf_header import is_gguf
from .open_file import OpenFile
from .safetensors_file import SafetensorsFile

WeightsFile = SafetensorsFile | GgufFile


def open_weights(path: Path) -> WeightsFile:
    """Open a safetensors or GGUF file, by its first bytes; no tensor is read.

    Raises CheckpointError if it is neither, or damaged.
    """
    return GgufFile(path) if is_gguf(OpenFile(path)) else SafetensorsFile(path)
