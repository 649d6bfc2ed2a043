"""Errors that a user can act on: each says what is wrong, where, and what would be right.

Messages name settings as in Python, in backticks (`gemma_root`); commands put their flags there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class EntracteError(Exception):
    """The base of all errors with a cause outside this package's code.

    settings: those that the message names in backticks.
    """

    def __init__(self, *message: object, settings: tuple[str, ...] = ()) -> None:
        super().__init__(*message)
        self.settings = settings


class RequestError(EntracteError):
    """A request asks for something that cannot be made."""


class CheckpointError(EntracteError):
    """A model file is missing, damaged, or of another kind."""


class CheckpointChanged(CheckpointError):
    """A file was changed or replaced after it was opened, and must be opened again."""


class LoraError(CheckpointError):
    """A LoRA cannot be used, or not as a whole.

    path: of the LoRA. reason: what is wrong, without the path. partly: whether the rest can be
    used.
    """

    def __init__(self, path: Path, reason: str, partly: bool = False) -> None:
        advice = ". To apply the rest: LoraSpec(partial=True)" if partly else ""
        super().__init__(f"LoRA {path}: {reason}{advice}")
        self.path = path
        self.reason = reason
        self.partly = partly


class MediaError(EntracteError):
    """An image cannot be read, or an output cannot be written."""


class WriteError(MediaError):
    """A file cannot be written: no folder, no permission, no space."""


class NotFinite(EntracteError):
    """A stage produced NaN or infinities; the message names it and likely causes."""


class ClosedError(EntracteError):
    """The engine is closed."""


class Cancelled(EntracteError):
    """The caller asked to stop."""


class ResidencyError(EntracteError):
    """A residency contradicts itself, the component or the machine."""


class BudgetError(ResidencyError):
    """The weights do not fit the memory budgets.

    reason: what does not fit, in words. missing: the bytes that each memory lacks.
    nearest: arguments of a `Residency` that fits, or else of the smallest; None if unknown. needs:
    what the latter takes, in words; empty if it fits.
    """

    def __init__(
        self,
        reason: str,
        missing: Mapping[str, int] | None = None,
        nearest: Mapping[str, Any] | None = None,
        needs: str = "",
    ) -> None:
        self.reason = reason
        self.missing = missing or {}
        self.nearest = nearest
        self.needs = needs
        super().__init__(self.worded(_as_call))

    def worded(self, plan: Callable[[Mapping[str, Any]], str]) -> str:
        """The message, with the nearest plan worded by `plan`."""
        if self.nearest is None:
            return self.reason
        if not self.needs:
            return f"{self.reason}. This fits: {plan(self.nearest)}"
        return f"{self.reason}. The smallest plan, {plan(self.nearest)}, needs {self.needs}"


class OutOfMemory(ResidencyError):
    """The device or the host refused memory that the budget allowed."""


class DeviceFault(ResidencyError):
    """The device failed, and the contents of its memory are undefined."""


class PeerFailed(EntracteError):
    """Another process of the group that makes a video together failed, died or does not answer."""


def _as_call(arguments: Mapping[str, Any]) -> str:
    """What to write in Python to have a plan."""
    return f"Residency({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
