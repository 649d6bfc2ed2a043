"""Where every byte of weights is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .buffer import Buffer
from .buffer_key import Role

Where = Literal["device", "pinned", "pageable"]


@dataclass(frozen=True, slots=True)
class Row:
    """Memory of a component for one purpose.

    content: the weight set, or `factors`; `empty` if undefined.
    units: how many blocks, or what is outside them, it holds.
    """

    component: str
    where: Where
    role: Role
    content: str
    units: int
    nbytes: int


def residency_rows(component: str, buffers: Iterable[Buffer]) -> list[Row]:
    """A component's memory, by purpose and content."""
    sums: dict[tuple[Where, Role, str], tuple[int, int]] = {}
    for buffer in buffers:
        where: Where = "device"
        if buffer.key.tier == "host":
            where = "pinned" if buffer.pinned else "pageable"
        content = "empty"
        if buffer.content is not None:
            content = "factors" if buffer.content.weights is None else str(buffer.content.weights)
        key = (where, buffer.key.role, content)
        units, nbytes = sums.get(key, (0, 0))
        sums[key] = (units + 1, nbytes + buffer.memory.nbytes)
    return [Row(component, *key, *counted) for key, counted in sorted(sums.items())]
