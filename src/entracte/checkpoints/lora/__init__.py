"""LoRA files and their variants: which parameters they change, and how."""

from .file import ADAPTED, LoraFile, open_lora, open_lora_file
from .sorting import is_lora

__all__ = ["ADAPTED", "LoraFile", "is_lora", "open_lora", "open_lora_file"]
