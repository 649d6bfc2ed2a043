"""Folders in which PEFT and diffusers save a LoRA. Imports nothing heavy, for the server."""

from pathlib import Path

from entracte.errors import LoraError

# The name of such a folder's one file of factors.
PEFT_WEIGHTS = "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"


def is_adapter_folder(path: Path) -> bool:
    """Whether a path is such a folder."""
    return any((path / name).is_file() for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS))


def lora_path(path: Path) -> Path:
    """The file that a LoRA's path stands for: itself, or a folder's. Raises LoraError."""
    if not path.is_dir():
        return path
    for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        if (path / name).is_file():
            return path / name
    raise LoraError(path, f"it is a folder without {PEFT_WEIGHTS} or {DIFFUSERS_WEIGHTS}")
