"""Where the weights of every block were, from the beginning of a generation to its end."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from entracte.residency import BlockWeights, BufferKey, Record

from .clock import Moments
from .dump import STATES


@dataclass(slots=True)
class _Held:
    """What a buffer holds, and what is being written to it."""

    content: BlockWeights | None = None
    coming: BlockWeights | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """A buffer's next state, at a time; None: it is freed."""

    seconds: float
    key: BufferKey
    held: _Held | None


@dataclass(slots=True)
class ResidencyMap:
    """Per block, the times at which its state changed, and the state from then on.

    A block is `in flight` while it is brought to the device; else `device` where its base is there,
    `merged` where merged weights are, `both`; else on the `host`, or only on `disk`.
    """

    component: str
    blocks: list[list[tuple[float, int]]] = field(default_factory=list)


def residency_map(record: Record, moments: Moments) -> ResidencyMap:
    """The map of the adapted component, times in seconds as `moments` has them."""
    component, blocks = record.adapted, record.adapted_blocks
    buffers = {
        each.key: _Held(each.content)
        for each in record.buffers
        if each.component == component and _shown(each.key)
    }
    found = ResidencyMap(component, [[(0.0, _state(buffers, unit))] for unit in range(blocks)])
    for change in sorted(_changes(record, component, moments), key=lambda each: each.seconds):
        before = buffers.pop(change.key, _Held())
        after = change.held
        if after is not None:
            buffers[change.key] = after
        touched = {before.content, before.coming}
        touched |= set() if after is None else {after.content, after.coming}
        for unit in {content.unit for content in touched if content is not None}:
            if unit < blocks:
                _note(found.blocks[unit], change.seconds, _state(buffers, unit))
    return found


def _changes(record: Record, component: str, moments: Moments) -> Iterator[_Change]:
    for transfer in record.transfers:
        if transfer.component == component and _shown(transfer.key):
            begin, end = moments.of(transfer.begin), moments.of(transfer.end)
            if begin is None:
                continue
            yield _Change(begin, transfer.key, _Held(coming=transfer.content))
            if end is not None:
                yield _Change(end, transfer.key, _Held(transfer.content))
    for change in record.memory:
        if change.component == component and change.nbytes < 0 and _shown(change.key):
            yield _Change(moments.since_zero(change.seconds), change.key, None)


def _shown(key: BufferKey) -> bool:
    return key.role in ("weights", "kept", "slot")


def _state(buffers: dict[BufferKey, _Held], unit: int) -> int:
    base = merged = coming = on_host = False
    for key, held in buffers.items():
        if key.tier == "device":
            coming |= held.coming is not None and held.coming.unit == unit
            if held.content is not None and held.content.unit == unit:
                plain = not held.content.of_weights.adapters
                base, merged = base or plain, merged or not plain
        elif held.content is not None and held.content.unit == unit:
            on_host = True
    if coming:
        return STATES.index("in flight")
    if base or merged:
        return STATES.index("both" if base and merged else "merged" if merged else "device")
    return STATES.index("host" if on_host else "disk")


def _note(line: list[tuple[float, int]], seconds: float, state: int) -> None:
    if line[-1][0] >= seconds:
        line[-1] = (line[-1][0], state)
    else:
        line.append((seconds, state))
    if len(line) > 1 and line[-2][1] == line[-1][1]:
        line.pop()
