"""Errors and plans worded for the command line: flags instead of settings and arguments."""

import re
from collections.abc import Mapping
from typing import Any

from entracte.errors import BudgetError, EntracteError, LoraError

from .base import flag_name


def worded(error: EntracteError) -> str:
    """An error's message for the command line."""
    match error:
        case BudgetError():
            return error.worded(residency_flags)
        case LoraError(partly=True):
            return f"LoRA {error.path}: {error.reason}. To apply the rest: --lora-partial"
    text = str(error)
    for name in error.settings:
        text = re.sub(f"`{name}`", flag_name(name), text)
    return text


def residency_flags(arguments: Mapping[str, Any]) -> str:
    """The flags for arguments of a `Residency`."""
    words = []
    for name, value in arguments.items():
        if name == "places":
            words += [f"--place {component}={place}" for component, place in value.items()]
        else:
            words.append(f"{flag_name(name)} {value}")
    return " ".join(words)
