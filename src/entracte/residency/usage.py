"""Where every byte of weights is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .buffer import Buffer
from .buffer_key import BlockWeights, Role

OwnMemory = Literal["device", "pinned", "pageable"]

# peer: of the other devices of the group, which this one copies from.
Where = OwnMemory | Literal["peer"]


@dataclass(frozen=True, slots=True)
class Row:
    """Memory of a component for one purpose.

    content: the weight set, or `factors`; `empty` if undefined.
    units: how many blocks, or what is outside them, it holds.
    for_peers: other devices copy from it.
    """

    component: str
    where: Where
    role: Role
    content: str
    units: int
    nbytes: int
    for_peers: bool = False


def residency_rows(
    component: str, buffers: Iterable[Buffer], of_peers: Iterable[tuple[BlockWeights, int]]
) -> list[Row]:
    """A component's memory, by purpose and content. of_peers: what is in theirs, with its bytes."""
    sums: dict[tuple[Where, Role, str, bool], tuple[int, int]] = {}

    def add(where: Where, role: Role, held: BlockWeights | None, size: int, lent: bool) -> None:
        content = "empty"
        if held is not None:
            content = "factors" if held.weights is None else str(held.weights)
        key = where, role, content, lent
        units, nbytes = sums.get(key, (0, 0))
        sums[key] = (units + 1, nbytes + size)

    for buffer in buffers:
        where: Where = "device"
        if buffer.key.tier == "host":
            where = "pinned" if buffer.pinned else "pageable"
        add(where, buffer.key.role, buffer.content, buffer.memory.nbytes, buffer.for_peers)
    for content, size in of_peers:
        add("peer", "weights", content, size, False)
    return [
        Row(component, where, role, content, *counted, for_peers)
        for (where, role, content, for_peers), counted in sorted(sums.items())
    ]
