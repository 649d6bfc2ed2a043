"""Wishes of the user for the device manager, and their meaning for a component."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from entracte.errors import ResidencyError

Mode = Literal["original", "dynamic", "snapshot", "fused", "resident"]
# For a planner, which replaces it by a mode.
Auto = Literal["auto"]
SnapshotPolicy = Literal["low-vram", "aggressive"]
Place = Literal["resident", "snapshot", "streamed", "disk", "peer"]

# Modes by name; `legacy` is an older name of `original`.
MODES: Mapping[str, Mode] = MappingProxyType(
    {**{mode: mode for mode in get_args(Mode)}, "legacy": "original"}
)
AUTO: Auto = "auto"

# Modes that merge or apply adapters on one base, and so cannot have two sources.
ADAPTING: tuple[Mode, ...] = ("original", "dynamic", "fused")
# Modes that leave a block's weights where they are for a whole request, so that other devices can
# copy them meanwhile.
STANDING: tuple[Mode, ...] = ("resident", "fused", "dynamic")


@dataclass(frozen=True, slots=True)
class Residency:
    """Where weights are to live.

    mode: how the second weight set of the component that has several gets to the device; `auto`
        leaves the choice to a planner, which the device manager itself does not have.
    snapshot_policy: of mode snapshot: swap block by block into the same memory (low-vram), or
        copy into memory of its own ahead of time (aggressive).
    resident_blocks: how many blocks' base weights stay on the device (default: all); the others
        stream through slots. merged_blocks: of mode fused: how many blocks stay merged (default 0).
    places: by component; see `Place`. For the component with several weight sets, `snapshot`,
        `disk` and `peer` say where weights that are not on the device are copied from. With `peer`
        each device of a group keeps an equal part of the blocks, of every weight set that the mode
        keeps, and copies the others from the other devices, just in time.
    device_memory, host_memory, pinned_memory: limits in bytes for weights; None: no limit.
    """

    mode: Mode | Auto = "resident"
    snapshot_policy: SnapshotPolicy = "low-vram"
    resident_blocks: int | None = None
    merged_blocks: int | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    device_memory: int | None = None
    host_memory: int | None = None
    pinned_memory: int | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, (*MODES, AUTO))
        object.__setattr__(self, "mode", MODES.get(self.mode, AUTO))
        _one_of("snapshot policy", self.snapshot_policy, get_args(SnapshotPolicy))
        for component, place in self.places.items():
            _one_of(f"place of {component}", place, get_args(Place))
        for name, number in (
            ("resident_blocks", self.resident_blocks),
            ("merged_blocks", self.merged_blocks),
        ):
            if number is not None and number < 0:
                raise ResidencyError(f"{name} is {number}; it must be 0 or more")
        if self.merged_blocks is not None and self.mode not in ("fused", AUTO):
            raise ResidencyError(
                f"merged_blocks applies only to mode fused (the mode is {self.mode})"
            )
        if self.resident_blocks is not None and self.mode == "resident":
            raise ResidencyError(
                "mode resident keeps all blocks on the device: leave resident_blocks out, or use "
                "mode fused or snapshot"
            )


@dataclass(frozen=True, slots=True)
class ComponentPolicy:
    """How one component is held: the input of its plan.

    home: where weights that are not on the device are copied from: host memory, the files, or the
        other devices of the group.
    stays: whether device memory is kept between loans.
    """

    mode: Mode = "resident"
    snapshot_policy: SnapshotPolicy = "low-vram"
    resident_blocks: int | None = None
    merged_blocks: int = 0
    home: Literal["host", "disk", "peer"] = "host"
    stays: bool = True


def resolve_policy(component: str, adapted: bool, wanted: Residency) -> ComponentPolicy:
    """The policy of one component; raises ResidencyError for contradictory wishes."""
    place = wanted.places.get(component)
    if place == "peer":
        return _among_peers(component, adapted, wanted)
    if not adapted:
        match place:
            case None | "resident":
                return ComponentPolicy()
            case "streamed":
                return ComponentPolicy("snapshot", resident_blocks=0, stays=False)
            case "snapshot" | "disk":
                return ComponentPolicy(home="disk" if place == "disk" else "host", stays=False)
    if wanted.mode == AUTO:
        raise ResidencyError("mode auto is a planner's to resolve: name a mode")
    m = wanted.resident_blocks
    if place == "resident" and m is not None:
        raise ResidencyError(
            f"{component} is placed resident, and {m} resident blocks are asked for: leave one out"
        )
    if place == "streamed":
        if m or wanted.mode == "resident":
            other = f"{m} resident blocks are" if m else "mode resident is"
            raise ResidencyError(f"{component} is placed streamed, and {other} asked for")
        m = 0
    return ComponentPolicy(
        wanted.mode,
        wanted.snapshot_policy,
        m,
        wanted.merged_blocks or 0,
        home="disk" if place == "disk" else "host",
    )


def _among_peers(component: str, adapted: bool, wanted: Residency) -> ComponentPolicy:
    """The policy of a component whose blocks are shared out among the devices of a group."""
    if not adapted:
        raise ResidencyError(f"{component} cannot be placed peer: only the adapted component can")
    if wanted.mode == AUTO:
        raise ResidencyError("mode auto is a planner's to resolve: name a mode")
    if wanted.mode not in STANDING:
        raise ResidencyError(
            f"{component} is placed peer, and mode {wanted.mode} replaces weights while other "
            f"devices may copy them: use {', '.join(STANDING)}"
        )
    if wanted.resident_blocks is not None:
        raise ResidencyError(
            f"{component} is placed peer, where each device keeps an equal part of the blocks: "
            "leave resident_blocks out"
        )
    return ComponentPolicy(wanted.mode, merged_blocks=wanted.merged_blocks or 0, home="peer")


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ResidencyError(f"{what} {value!r} is not one of {', '.join(known)}")
