"""How much memory the weights of every component took, and when."""

from collections import defaultdict

from entracte.residency import BufferKey, OwnMemory, Record

from .clock import Moments

# By component and place: the times at which the number of bytes changed, and the number then.
MemoryLines = dict[str, dict[OwnMemory, list[tuple[float, int]]]]


def memory_lines(record: Record, moments: Moments) -> MemoryLines:
    """Staircases in bytes from 0 s on, times in seconds as `moments` has them."""
    now: dict[tuple[str, OwnMemory], int] = defaultdict(int)
    for buffer in record.buffers:
        now[buffer.component, _where(buffer.key, buffer.pinned)] += buffer.nbytes
    lines = {kind: [(0.0, nbytes)] for kind, nbytes in now.items()}
    for change in record.memory:
        kind = change.component, _where(change.key, change.pinned)
        now[kind] += change.nbytes
        line = lines.setdefault(kind, [(0.0, 0)])
        seconds = moments.since_zero(change.seconds)
        if line[-1][0] >= seconds:
            line[-1] = (line[-1][0], now[kind])
        else:
            line.append((seconds, now[kind]))
    found: MemoryLines = {}
    for (component, where), line in sorted(lines.items()):
        found.setdefault(component, {})[where] = line
    return found


def peak_on_device(lines: MemoryLines, begin: float, end: float) -> int:
    """Peak device memory of all components together between two times, in bytes."""
    changes = sorted(
        (seconds, nbytes - before)
        for places in lines.values()
        for line in [places.get("device", [])]
        for before, (seconds, nbytes) in zip([0, *(n for _, n in line)], line, strict=False)
    )
    total = peak = 0
    for seconds, difference in changes:
        if seconds > end:
            break
        total += difference
        # Before the stage begins, only what is left at its beginning counts.
        peak = total if seconds <= begin else max(peak, total)
    return peak


def _where(key: BufferKey, pinned: bool) -> OwnMemory:
    if key.tier == "device":
        return "device"
    return "pinned" if pinned else "pageable"
