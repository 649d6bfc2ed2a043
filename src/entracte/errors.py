"""Errors that a user can act on: each says what was wrong, where, and what would be right."""

from pathlib import Path


class EntracteError(Exception):
    """The root of every error that this package raises for a reason outside its own code."""


class RequestError(EntracteError):
    """A request asks for something that cannot be made."""


class CheckpointError(EntracteError):
    """A model file is missing, damaged, or not what was asked for."""


class CheckpointChanged(CheckpointError):
    """A file was changed or replaced after it was opened; what uses it must open it again."""


class LoraError(CheckpointError):
    """A LoRA cannot be used, or not as a whole.

    path: of the LoRA. reason: what is wrong, without the path. partly: whether the rest of it can
    be used.
    """

    def __init__(self, path: Path, reason: str, partly: bool = False) -> None:
        advice = ". To apply the rest: --lora-partial, or LoraSpec(partial=True)" if partly else ""
        super().__init__(f"LoRA {path}: {reason}{advice}")
        self.path = path
        self.reason = reason
        self.partly = partly


class MediaError(EntracteError):
    """An image cannot be read, or an output cannot be written."""


class WriteError(MediaError):
    """A file cannot be written: no folder, no permission, no space."""


class NotFinite(EntracteError):
    """A stage made numbers that are infinite or none at all; says which, and what may cause it."""


class ClosedError(EntracteError):
    """The engine was closed, and has given its memory back."""


class Cancelled(EntracteError):
    """The caller asked to stop."""


class ResidencyError(EntracteError):
    """What was asked of the device manager contradicts itself, the component, or the machine."""


class BudgetError(ResidencyError):
    """The weights do not fit the memory that they may take; says what would."""


class OutOfMemory(ResidencyError):
    """The device or the host refused memory that the budget allowed."""


class DeviceFault(ResidencyError):
    """The device did something wrong, and what its memory holds is no longer known."""
