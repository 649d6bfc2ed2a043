"""Faults on demand."""

from typing import Literal

Operation = Literal["allocate", "allocate_host", "copy", "merge"]


class Faults:
    """Operations that are to fail."""

    def __init__(self) -> None:
        self._left: list[tuple[Operation, int]] = []

    def plan(self, what: Operation, after: int) -> None:
        """Make the operation of this kind after `after` others fail, once."""
        self._left.append((what, after))

    def due(self, what: Operation) -> bool:
        """Whether the operation that is about to begin must fail."""
        due = (what, 0) in self._left
        self._left = [
            (each, after - (each == what))
            for each, after in self._left
            if (each, after) != (what, 0)
        ]
        return due
