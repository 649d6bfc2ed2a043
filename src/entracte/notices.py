"""Warnings that go to the caller instead of raising an error."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Notice:
    """One remark on a result. path: the file it is about. keys: those of the file, if any."""

    path: Path
    message: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
