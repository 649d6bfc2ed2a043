"""What the planner may choose from: ways to hold the transformer, and places for all else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from entracte.residency import Mode, Place, Residency, SnapshotPolicy

Home = Literal["host", "disk"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to hold the transformer.

    resident: m, how many blocks' base stays on the device. merged: k, of mode fused.
    home: where weights that are not on the device are copied from.
    """

    mode: Mode
    policy: SnapshotPolicy
    resident: int
    merged: int
    home: Home = "host"

    @classmethod
    def of(cls, wanted: Residency, blocks: int) -> "Way":
        """The way that a residency with a named mode says."""
        if wanted.mode == "auto":
            raise ValueError("mode auto names no way")
        place = wanted.places.get("transformer")
        m = wanted.resident_blocks
        if m is None:
            m = 0 if place == "streamed" else blocks
        home: Home = "disk" if place == "disk" else "host"
        return cls(wanted.mode, wanted.snapshot_policy, m, wanted.merged_blocks or 0, home)

    def residency(self, places: Mapping[str, Place], like: Residency) -> Residency:
        """The same as what the device manager is told, with the budgets of another residency."""
        home: dict[str, Place] = {"transformer": "disk"} if self.home == "disk" else {}
        return Residency(
            mode=self.mode,
            snapshot_policy=self.policy,
            resident_blocks=None if self.mode == "resident" else self.resident,
            merged_blocks=self.merged if self.mode == "fused" else None,
            places={**places, **home},
            device_memory=like.device_memory,
            host_memory=like.host_memory,
            pinned_memory=like.pinned_memory,
        )


def ways(
    blocks: int, sets: int, adapted: bool, wanted: Residency, dynamic: bool = False
) -> Iterator[Way]:
    """All ways that give the same bits and that the wishes leave open.

    sets: how many weight sets a request has. adapted: whether one of them has adapters.
    dynamic: those of mode `dynamic` instead, which gives other bits.
    Merging is of no use without adapters, nor a policy for swapping with one set only. The
    baseline, `original`, is never better than `snapshot`, but may fit where that does not.
    """
    place = wanted.places.get("transformer")
    homes: tuple[Home, ...] = ("host", "disk")
    if place is not None:
        homes = ("disk",) if place == "disk" else ("host",)
    dials = list(range(blocks + 1))
    if wanted.resident_blocks is not None:
        dials = [wanted.resident_blocks]
    elif place == "streamed":
        dials = [0]
    elif place == "resident":
        dials = [blocks]
    kept = [wanted.merged_blocks] if wanted.merged_blocks is not None else None
    for home in homes:
        if dynamic:
            yield from (Way("dynamic", "low-vram", m, 0, home) for m in dials if adapted)
            continue
        if kept is None:
            if dials[-1] == blocks and home == homes[0]:
                yield Way("resident", "low-vram", blocks, 0)
            for m in dials:
                yield Way("snapshot", "low-vram", m, 0, home)
                if sets > 1:
                    yield Way("snapshot", "aggressive", m, 0, home)
                if adapted:
                    yield Way("original", "low-vram", m, 0, home)
        if adapted:
            for m in dials:
                for k in kept or range(blocks + 1):
                    yield Way("fused", "low-vram", m, k, home)


def placements(
    components: Mapping[str, int], wanted: Mapping[str, Place]
) -> Iterator[dict[str, Place]]:
    """All places for the components beside the transformer, by name and number of blocks."""
    if not components:
        yield {}
        return
    (name, blocks), *rest = components.items()
    open_places: tuple[Place, ...] = ("resident", "snapshot", "disk")
    if blocks:
        open_places = ("resident", "snapshot", "streamed", "disk")
    if name in wanted:
        open_places = (wanted[name],)
    for place in open_places:
        for others in placements(dict(rest), wanted):
            yield {name: place, **others}
