"""LoRA files and their variants: which parameters they change, and how."""

from .file import ADAPTED, WHOLE, LoraFile, ReferenceScale, open_lora, open_lora_file
from .sorting import is_lora

__all__ = [
    "ADAPTED",
    "WHOLE",
    "LoraFile",
    "ReferenceScale",
    "is_lora",
    "open_lora",
    "open_lora_file",
]
