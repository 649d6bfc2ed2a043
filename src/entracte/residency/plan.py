"""The plan of one component: every buffer that it will have, and which weights go where.

A plan is data. It is made from sizes alone, before any weight is read, and the buffers of the
component are exactly those that it lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from entracte.errors import ResidencyError

from .buffer_key import SCRATCH, STAGING, BlockWeights, BufferKey, Tier
from .policy import ADAPTING, ComponentPolicy
from .spec import WeightPhase, WeightSet, distinct

# always: as long as the plan stands. run: while a request is under way. phase: from the first
# phase's begin to the last one's end. prepare: while weight sets are made before a request.
Lifetime = Literal["always", "run", "phase", "prepare"]

# How many slots hide a copy or a merge; a copy and then a merge need a third, or the link stands
# still during every merge. What is stored in another form is copied to slots of its own.
SLOTS = 2
SLOTS_TO_MERGE_ON_ARRIVAL = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of every unit (the last is everything outside the blocks), and of adapters' factors.

    units: as they are computed with. stored: of units that are stored in another form, as stored.
    scratch: for the weights of one unit that are quantised once they are expanded and merged.
    """

    units: tuple[int, ...]
    factors: Mapping[str, tuple[int, ...]]
    stored: Mapping[int, int] = field(default_factory=dict)
    scratch: int = 0

    @property
    def blocks(self) -> int:
        return len(self.units) - 1

    @property
    def at_rest(self) -> tuple[int, ...]:
        """Bytes of every unit as it is stored."""
        return tuple(self.stored.get(unit, nbytes) for unit, nbytes in enumerate(self.units))


@dataclass(frozen=True, slots=True)
class RankShare:
    """What one rank of a group does of what is shared out by unit."""

    rank: int = 0
    ranks: int = 1

    def owner(self, unit: int) -> int:
        """The rank that reads a unit for all, and keeps it for all where they copy it."""
        return unit % self.ranks

    def has(self, unit: int) -> bool:
        return self.owner(unit) == self.rank


WHOLE = RankShare()


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """A buffer to be: its name, its size in bytes, and when it exists.

    for_peers: whether other devices copy from it.
    """

    key: BufferKey
    nbytes: int
    lifetime: Lifetime = "always"
    for_peers: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How one component will be held for some phases.

    places: for every weight set, the buffer of every unit; None is a slot.
    expanded: the units that are stored in another form than they are computed with.
    share: of the group's work, where the component's home is `peer` or its host memory is shared.
    bytes_at_peers: of what other devices hold, and this one copies.
    """

    component: str
    policy: ComponentPolicy
    phases: tuple[WeightPhase, ...]
    places: Mapping[WeightSet, tuple[BufferKey | None, ...]]
    resident: frozenset[int]
    kept: frozenset[int]
    slots: int
    buffers: tuple[BufferPlan, ...]
    expanded: frozenset[int] = frozenset()
    share: RankShare = WHOLE
    bytes_at_peers: int = 0

    @property
    def bytes_for_peers(self) -> int:
        """Bytes of this device that others copy from."""
        return sum(buffer.nbytes for buffer in self.buffers if buffer.for_peers)

    @property
    def copied_from(self) -> Mapping[int, int]:
        """The units that are copied from other devices in every sweep, with the ranks of those."""
        if self.policy.home != "peer":
            return {}
        units = (unit for unit in range(self.blocks) if unit not in self.resident)
        return {unit: self.share.owner(unit) for unit in units}

    @property
    def blocks(self) -> int:
        """The number of blocks; what is outside them is one unit more."""
        return len(next(iter(self.places.values()))) - 1

    @property
    def unmerged(self) -> bool:
        """Whether adapters are applied beside the weights instead of merged into them."""
        return self.policy.mode == "dynamic"

    @property
    def rolling(self) -> bool:
        """Whether a unit's next weights are brought as soon as it is done with its present ones."""
        return self.policy.mode != "original"

    def base(self, unit: int) -> BlockWeights:
        """A unit's plain weights, as they are stored, where all phases have one source."""
        plain = self.phases[0].weights.plain
        return BlockWeights(unit, plain, stored=unit in self.expanded)

    def content(self, unit: int, weights: WeightSet) -> BlockWeights:
        """What is in memory where a unit is used under a weight set."""
        return self.base(unit) if self.unmerged else BlockWeights(unit, weights)

    def is_among_peers(self, content: BlockWeights) -> bool:
        """Whether the devices of a group keep these weights of a block, one of them each."""
        if self.policy.home != "peer" or content.adapter is not None or content.unit == self.blocks:
            return False
        if self.policy.mode == "resident":
            return content.weights in self.places and not content.stored
        return content == self.base(content.unit)

    def for_peers(self, key: BufferKey) -> BlockWeights | None:
        """What a device buffer holds for other devices to copy, if anything."""
        sets = self.places if self.policy.mode == "resident" else ()
        found = [BlockWeights(key.index, each) for each in sets if key in self.places[each]]
        content = found[0] if found else self.base(key.index)
        mine = key.tier == "device" and key.role == "weights"
        return content if mine and self.is_among_peers(content) else None

    def host_content(self, key: BufferKey) -> BlockWeights:
        """What a host buffer is for. Weights without adapters rest as they are stored."""
        if isinstance(key.of, WeightSet):
            stored = not key.of.adapters and key.index in self.expanded
            return BlockWeights(key.index, key.of, stored=stored)
        return BlockWeights(key.index, adapter=str(key.of))

    def nbytes(self, tier: Tier, *lifetimes: Lifetime) -> int:
        """Bytes of all buffers of a tier that exist in the given lifetimes: of this rank's device,
        or of the host, where ranks share all but their staging buffers.
        """
        return sum(
            buffer.nbytes * (self.share.ranks if buffer.key == STAGING else 1)
            for buffer in self.buffers
            if buffer.key.tier == tier and buffer.lifetime in lifetimes
        )


def make_plan(
    component: str,
    sizes: Sizes,
    phases: tuple[WeightPhase, ...],
    policy: ComponentPolicy,
    unified: bool,
    share: RankShare = WHOLE,
) -> Plan:
    """The plan; raises ResidencyError where the policy does not fit the component.

    unified: whether files can be read into device memory without staging. share: this rank's part
    of what a group shares out.
    """
    n = sizes.blocks
    if not phases:
        raise ResidencyError(f"{component} is not used in any phase")
    check_policy(component, n, policy)
    expanded = frozenset(sizes.stored)
    if policy.mode == "dynamic":  # computes from weights as they are stored
        sizes = Sizes(sizes.at_rest, sizes.factors)
    sources = {weights.source for weights in distinct(phases)}
    if policy.mode in ADAPTING and len(sources) > 1:
        raise ResidencyError(
            f"mode {policy.mode} merges adapters into one base; {component} has "
            f"{' and '.join(sorted(sources))}: use snapshot or resident"
        )
    m = n if policy.resident_blocks is None else policy.resident_blocks
    streamed = spread(range(n), n - m)
    if policy.home == "peer":
        if n == 0:
            raise ResidencyError(f"{component} has no blocks that devices could share out")
        if share.ranks == 1:
            raise ResidencyError(
                f"{component} is placed peer, and there is one device: give several"
            )
        streamed = tuple(unit for unit in range(n) if not share.has(unit))
    resident = frozenset(range(n + 1)) - frozenset(streamed)
    # A kept block that would have to be streamed saves more than one whose base is at hand.
    k = policy.merged_blocks
    others = [block for block in range(n) if block not in streamed]
    kept = frozenset(
        [*spread(streamed, min(k, len(streamed))), *spread(others, max(0, k - len(streamed))), n]
    )
    sets = distinct(phases)
    places = {
        weights: tuple(
            _place(policy, weights, index, unit, sizes, resident, kept) for unit in range(n + 1)
        )
        for index, weights in enumerate(sets)
    }
    slots = _slots(policy, sets, places, resident, sizes)
    plan = Plan(component, policy, phases, places, resident, kept, slots, (), expanded, share)
    buffers = (*_device_buffers(plan, sizes, sets), *_host_buffers(plan, sizes, sets))
    if policy.home == "disk" and not unified:
        largest = max([*sizes.at_rest, *(max(each) for each in sizes.factors.values())])
        staging = BufferPlan(STAGING, largest, "always" if policy.stays else "run")
        buffers = (*buffers, staging)
    # In mode resident each set is among the devices, else the base, as it is stored.
    whole = [len(sets) * nbytes for nbytes in sizes.units]
    copied = whole if policy.mode == "resident" else sizes.at_rest
    at_peers = sum(copied[unit] for unit in plan.copied_from)
    return replace(plan, buffers=buffers, bytes_at_peers=at_peers)


def spread(candidates: "range | tuple[int, ...] | list[int]", count: int) -> tuple[int, ...]:
    """So many of the candidates, evenly apart, so that the work between them hides theirs."""
    step = len(candidates) / count if count else 0
    return tuple(candidates[int((number + 0.5) * step)] for number in range(count))


def check_policy(component: str, n: int, policy: ComponentPolicy) -> None:
    """Raise ResidencyError where a component of n blocks cannot be held so, whatever the phases."""
    for name, number in (("resident", policy.resident_blocks), ("merged", policy.merged_blocks)):
        if number is not None and number > n:
            if n == 0:
                raise ResidencyError(f"{component} has no blocks that could be {name}")
            raise ResidencyError(
                f"{number} {name} blocks are asked for; {component} has {n}: give 0 to {n}"
            )
    if n == 0 and policy.resident_blocks == 0:
        raise ResidencyError(
            f"{component} cannot be streamed, because it has no blocks: place it snapshot, "
            "disk or resident"
        )


def _place(
    policy: ComponentPolicy,
    weights: WeightSet,
    index: int,
    unit: int,
    sizes: Sizes,
    resident: frozenset[int],
    kept: frozenset[int],
) -> BufferKey | None:
    """The buffer in which a unit has its weights of the index-th set; None for a slot."""
    outside = sizes.blocks
    if policy.mode == "fused" and (weights.adapters or unit in sizes.stored):
        return BufferKey("device", "kept", unit) if unit in kept else None
    own_copy = policy.mode == "resident" or (policy.mode, policy.snapshot_policy) == (
        "snapshot",
        "aggressive",
    )
    # What is outside the blocks is used last in a phase and first in the next: swapping it in place
    # would have the next phase wait for all copies before it.
    if policy.mode == "snapshot" and policy.stays and unit == outside > 0:
        own_copy = True
    copy = index if own_copy else 0
    return BufferKey("device", "weights", unit, copy) if unit in resident else None


def _slots(
    policy: ComponentPolicy,
    sets: tuple[WeightSet, ...],
    places: Mapping[WeightSet, tuple[BufferKey | None, ...]],
    resident: frozenset[int],
    sizes: Sizes,
) -> int:
    """How many slots there are: no more than there are blocks to go through them."""
    most, wanted = 0, SLOTS
    for weights in sets:
        slotted = [unit for unit, place in enumerate(places[weights]) if place is None]
        most = max(most, len(slotted))
        merged = weights.adapters and policy.mode in ("fused", "original")
        if merged and any(unit not in resident and unit not in sizes.stored for unit in slotted):
            wanted = SLOTS_TO_MERGE_ON_ARRIVAL
    return min(wanted, most)


def _device_buffers(plan: Plan, sizes: Sizes, sets: tuple[WeightSet, ...]) -> list[BufferPlan]:
    policy, n = plan.policy, sizes.blocks
    stays: Lifetime = "always" if policy.stays else "run"
    keys = dict.fromkeys(key for weights in sets for key in plan.places[weights] if key)
    if policy.mode in ADAPTING:  # the base is merged from, even if no phase runs it
        keys |= dict.fromkeys(BufferKey("device", "weights", u) for u in sorted(plan.resident))
    aggressive = (policy.mode, policy.snapshot_policy) == ("snapshot", "aggressive")
    base = sizes.at_rest if policy.mode == "fused" else sizes.units
    buffers = [
        BufferPlan(
            key,
            (base if key.role == "weights" else sizes.units)[key.index],
            "phase" if aggressive and key.of else stays,
            for_peers=plan.for_peers(key) is not None,
        )
        for key in keys
    ]
    largest = max(sizes.units[:n], default=0)
    buffers += [
        BufferPlan(BufferKey("device", "slot", number), largest, stays)
        for number in range(plan.slots)
    ]
    buffers += _stored_slots(plan, sizes, sets)
    if sizes.scratch and (sizes.stored or adapters(sets)) and policy.mode != "dynamic":
        made_before = policy.mode == "resident" and policy.stays
        buffers.append(BufferPlan(SCRATCH, sizes.scratch, "prepare" if made_before else stays))
    for name in adapters(sets):
        factors = sizes.factors[name]
        if policy.mode in ("fused", "dynamic"):
            buffers += [
                BufferPlan(BufferKey("device", "factors", unit, name), nbytes)
                for unit, nbytes in enumerate(factors)
                if nbytes
            ]
        else:
            lifetime: Lifetime = "always" if policy.mode == "original" else "prepare"
            buffers += [
                BufferPlan(BufferKey("device", "factor slot", number, name), max(factors), lifetime)
                for number in range(SLOTS)
            ]
    return buffers


def _stored_slots(plan: Plan, sizes: Sizes, sets: tuple[WeightSet, ...]) -> list[BufferPlan]:
    """Where what is stored in another form arrives, to be expanded to where it is used."""
    policy = plan.policy
    arriving = [
        nbytes
        for unit, nbytes in sizes.stored.items()
        if policy.mode != "fused" or unit not in plan.resident  # whose base stays as it is stored
    ]
    lifetime: Lifetime = "always" if policy.stays else "run"
    plain = any(not weights.adapters for weights in sets)
    if policy.stays and (policy.mode == "resident" or (policy.mode == "snapshot" and not plain)):
        lifetime = "prepare"
    return [
        BufferPlan(BufferKey("device", "stored slot", number), max(arriving), lifetime)
        for number in range(min(SLOTS, len(arriving)))
    ]


def _host_buffers(plan: Plan, sizes: Sizes, sets: tuple[WeightSet, ...]) -> list[BufferPlan]:
    """Copies of what the device will need again, pinned."""
    policy, n = plan.policy, sizes.blocks
    every, streamed = range(n + 1), [u for u in range(n) if u not in plan.resident]
    wanted: dict[BufferKey, int] = {}

    def want(weights: WeightSet, units: "range | list[int]") -> None:
        if weights.adapters or policy.home == "host":
            for unit in units:
                nbytes = (sizes.units if weights.adapters else sizes.at_rest)[unit]
                wanted[BufferKey("host", "weights", unit, weights)] = nbytes

    for index, weights in enumerate(sets):
        match policy.mode:
            case "original":
                want(weights.plain, every)
            case "dynamic" | "fused":
                want(weights.plain, streamed)
            case "snapshot":
                first_stays = policy.snapshot_policy == "aggressive" and index == 0 and policy.stays
                want(weights, streamed if first_stays else every)
            case "resident" if not policy.stays:
                want(weights, every)
    buffers = [BufferPlan(key, nbytes) for key, nbytes in wanted.items()]
    if policy.mode == "original" and policy.home == "host":
        buffers += [
            BufferPlan(BufferKey("host", "factors", unit, name), nbytes)
            for name in adapters(sets)
            for unit, nbytes in enumerate(sizes.factors[name])
            if nbytes
        ]
    return buffers


def adapters(sets: tuple[WeightSet, ...]) -> tuple[str, ...]:
    """The names of all adapters of some weight sets, each once."""
    return tuple(dict.fromkeys(each.name for weights in sets for each in weights.adapters))
