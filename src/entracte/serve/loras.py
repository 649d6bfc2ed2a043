"""LoRAs by name: the files of a folder that the operator chose."""

import re
from pathlib import Path

from entracte.errors import RequestError

# What a file may be called to be offered.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def list_loras(folder: Path | None) -> dict[str, Path]:
    """Every LoRA by the name of its file without `.safetensors`, sorted."""
    if folder is None:
        return {}
    return {
        path.stem: path
        for path in sorted(folder.glob("*.safetensors"))
        if NAME.fullmatch(path.stem) and path.is_file()
    }


def require_folder(folder: Path | None) -> None:
    """Raise RequestError for a folder that is not there."""
    if folder is not None and not folder.is_dir():
        raise RequestError(f"--lora-folder {folder} is no folder")
