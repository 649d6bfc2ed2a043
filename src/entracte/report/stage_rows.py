"""The stages of any engine's dump, for the bars and the table."""

from collections.abc import Sequence
from dataclasses import dataclass

from entracte.trace.dump import BETWEEN_STAGES, Dump, StageParts
from entracte.units import MIB

SEEN_MS = 1e-3  # less than this between the stages is rounding


@dataclass(frozen=True, slots=True)
class StageRow:
    """parts: None if the dump has none. peak_bytes: of the device, if there is one."""

    name: str
    duration_ms: float
    parts: StageParts | None
    peak_bytes: float | None

    @property
    def stall_ms(self) -> float:
        """Time spent waiting for weights; 0 if unknown."""
        return self.parts.stall_ms if self.parts is not None else 0.0


def stage_rows(dump: Dump) -> list[StageRow]:
    """The stages in order, then the time between them."""
    if dump.recording is not None:
        return [
            StageRow(
                stage.name,
                stage.duration_ms,
                stage.parts,
                stage.memory.device_bytes if stage.memory is not None else None,
            )
            for stage in dump.recording.stages
        ]
    rows = [StageRow(s.name, s.duration_ms, None, _peak(dump, s.name)) for s in dump.steps]
    rest = dump.total_duration_ms - sum(row.duration_ms for row in rows)
    if rest > SEEN_MS:
        rows.append(StageRow(BETWEEN_STAGES, rest, None, None))
    return rows


def all_names(dumps: Sequence[Dump]) -> list[str]:
    """The stages of all dumps, in the order of the runs: what only one has stands before the next
    that it shares with those before it, or at the end.
    """
    names: list[str] = []
    for dump in dumps:
        rows = [row.name for row in stage_rows(dump)]
        for at, name in enumerate(rows):
            if name not in names:
                following = (names.index(each) for each in rows[at:] if each in names)
                names.insert(next(following, len(names)), name)
    return sorted(names, key=lambda name: name == BETWEEN_STAGES)


def peak_of(dump: Dump) -> float | None:
    """The most that the process took of the device, in bytes."""
    peaks = [row.peak_bytes for row in stage_rows(dump) if row.peak_bytes is not None]
    return max(peaks, default=None)


def _peak(dump: Dump, name: str) -> float | None:
    checkpoint = dump.memory_checkpoints.get(name)
    if checkpoint is None or not checkpoint.peak_allocated_mb:
        return None
    return checkpoint.peak_allocated_mb * MIB
