"""What the planner chooses from: ways to hold the transformer, and places for everything else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entracte.residency import Mode, Place, Residency, SnapshotPolicy

Home = Literal["host", "disk", "peer"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to hold the transformer.

    resident: m, how many blocks' base stays on the device. merged: k, of mode fused.
    home: where weights that are not on the device are copied from; `peer`: from the other devices,
        each of which keeps its share of the blocks, whatever `resident` says.
    """

    mode: Mode
    policy: SnapshotPolicy
    resident: int
    merged: int
    home: Home = "host"

    @classmethod
    def of(cls, wanted: Residency, blocks: int) -> "Way":
        """The way that a residency with a named mode asks for."""
        if wanted.mode == "auto":
            raise ValueError("mode auto does not name a way")
        place = wanted.places.get("transformer")
        m = wanted.resident_blocks
        if m is None:
            m = 0 if place == "streamed" else blocks
        home: Home = place if place in ("disk", "peer") else "host"
        return cls(wanted.mode, wanted.snapshot_policy, m, wanted.merged_blocks or 0, home)

    def residency(self, places: Mapping[str, Place], like: Residency) -> Residency:
        """As a residency for the device manager, with the budgets of `like`."""
        home: dict[str, Place] = {} if self.home == "host" else {"transformer": self.home}
        chosen = self.mode != "resident" and self.home != "peer"
        return Residency(
            mode=self.mode,
            snapshot_policy=self.policy,
            resident_blocks=self.resident if chosen else None,
            merged_blocks=self.merged if self.mode == "fused" else None,
            places={**places, **home},
            device_memory=like.device_memory,
            host_memory=like.host_memory,
            pinned_memory=like.pinned_memory,
        )


@dataclass(frozen=True, slots=True)
class Family:
    """Ways that differ only in how many blocks are resident, and how many are kept merged.

    resident, merged: the numbers to choose from, in ascending order.
    """

    mode: Mode
    policy: SnapshotPolicy
    home: Home
    resident: Sequence[int]
    merged: Sequence[int] = (0,)

    def way(self, resident: int, merged: int) -> Way:
        return Way(self.mode, self.policy, resident, merged, self.home)

    def ways(self) -> Iterator[Way]:
        """All of them."""
        for m in self.resident:
            for k in self.merged:
                yield self.way(m, k)


def families(
    blocks: int,
    sets: int,
    adapted: bool,
    wanted: Residency,
    stored: bool = False,
    devices: int = 1,
) -> Iterator[Family]:
    """All ways that `wanted` leaves open, including those that do not give the same bits.

    sets: how many weight sets a request has. adapted: whether one of them has adapters.
    stored: whether blocks are stored in another form, and so expanded. devices: of a group, which
    may keep a share of the blocks each.
    Merging is pointless without adapters, and so is a swapping policy with a single weight set.
    The baseline, `original`, is never better than `snapshot`, but may fit where that does not.
    """
    place = wanted.places.get("transformer")
    kept: Sequence[int] = range(blocks + 1)
    if wanted.merged_blocks is not None:
        kept = [wanted.merged_blocks]
    if place == "peer" or (place is None and wanted.resident_blocks is None and devices > 1):
        own = [-(-blocks // devices)]
        if wanted.merged_blocks is None:
            yield Family("resident", "low-vram", "peer", own)
        if adapted or stored:
            yield Family("fused", "low-vram", "peer", own, kept)
    if place == "peer":
        return
    homes: tuple[Home, ...] = ("host", "disk")
    if place is not None:
        homes = ("disk",) if place == "disk" else ("host",)
    resident: Sequence[int] = range(blocks + 1)
    if wanted.resident_blocks is not None:
        resident = [wanted.resident_blocks]
    elif place == "streamed":
        resident = [0]
    elif place == "resident":
        resident = [blocks]
    for home in homes:
        if wanted.merged_blocks is None:
            if resident[-1] == blocks and home == homes[0]:
                yield Family("resident", "low-vram", "host", [blocks])
            yield Family("snapshot", "low-vram", home, resident)
            if sets > 1:
                yield Family("snapshot", "aggressive", home, resident)
            if adapted:
                yield Family("original", "low-vram", home, resident)
        if adapted or stored:
            yield Family("fused", "low-vram", home, resident, kept)
        if adapted:
            yield Family("dynamic", "low-vram", home, resident)


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
