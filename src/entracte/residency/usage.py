"""Where every byte of weights is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .buffer import Arena, Role

Where = Literal["device", "pinned", "pageable"]


@dataclass(frozen=True, slots=True)
class Row:
    """Memory of one kind of a component.

    content: the weight set, or `factors`, that it holds; `empty` for nothing of use.
    units: how many blocks, or what is outside them, it holds.
    """

    component: str
    where: Where
    role: Role
    content: str
    units: int
    nbytes: int


def residency_rows(component: str, arenas: Iterable[Arena]) -> list[Row]:
    """A component's memory, summed up by what it is for and what it holds."""
    sums: dict[tuple[Where, Role, str], tuple[int, int]] = {}
    for arena in arenas:
        where: Where = "device"
        if arena.key.tier == "host":
            where = "pinned" if arena.pinned else "pageable"
        content = "empty"
        if arena.content is not None:
            content = "factors" if arena.content.weights is None else str(arena.content.weights)
        key = (where, arena.key.role, content)
        units, nbytes = sums.get(key, (0, 0))
        sums[key] = (units + 1, nbytes + arena.memory.nbytes)
    return [Row(component, *key, *counted) for key, counted in sorted(sums.items())]
