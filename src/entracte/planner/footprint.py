"""Bytes of weights that a plan takes, in closed form: what `residency.plan` sums over its buffers.

Blocks are taken to be of one size, the largest; the transformer's and the text encoder's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from entracte.residency import SLOTS, SLOTS_TO_MERGE_ON_ARRIVAL, Place

from .candidates import Way


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes, by tier and by how long they are taken.

    always: as long as the plan stands. run: while the component is on loan. phases: from the first
    phase's begin to the last one's end. prepare: while weight sets are made.
    """

    always: int = 0
    run: int = 0
    phases: int = 0
    prepare: int = 0
    host: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """A component's sizes in bytes.

    factors: all factors of each adapter, and the most of them that one unit has.
    """

    blocks: int
    block: int
    outside: int
    factors: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, units: Sequence[int], adapters: Sequence[Sequence[int]] = ()) -> "Weights":
        """From the bytes of every unit (the last is what is outside the blocks)."""
        *blocks, outside = units
        return cls(
            len(blocks),
            max(blocks, default=0),
            outside,
            tuple((sum(each), max(each)) for each in adapters),
        )

    @property
    def nbytes(self) -> int:
        return self.blocks * self.block + self.outside

    @property
    def all_factors(self) -> int:
        return sum([total for total, _ in self.factors])

    @property
    def largest_factors(self) -> int:
        return sum([most for _, most in self.factors])

    @property
    def largest(self) -> int:
        return max(self.block, self.outside, *(most for _, most in self.factors))


def transformer_footprint(
    w: Weights, plain: bool, adapted: int, way: Way, unified: bool
) -> Footprint:
    """Of the component with weight sets: the plain one or not, and so many with adapters."""
    sets = int(plain) + adapted
    n, m, k, u, o = w.blocks, way.resident, way.merged, w.block, w.outside
    streamed = n - m
    stream_slots = min(SLOTS, streamed)
    factor_slots, factors = SLOTS * w.largest_factors, w.all_factors
    from_host = way.home == "host"
    # What the files hold needs no copy on the host; merged sets do.
    copies = adapted + (int(plain) if from_host else 0)
    staging = 0 if from_host or unified else w.largest
    base = m * u + o
    match way.mode:
        case "resident":
            return Footprint(always=sets * w.nbytes, prepare=factor_slots, host=staging)
        case "snapshot" if way.policy == "low-vram":
            outside = sets * o if n else o
            return Footprint(
                always=m * u + outside + stream_slots * u,
                prepare=factor_slots,
                host=copies * w.nbytes + staging,
            )
        case "snapshot":
            first_has_copy = from_host if plain else True
            return Footprint(
                always=base + stream_slots * u,
                phases=(sets - 1) * base,
                prepare=factor_slots,
                host=copies * w.nbytes - (base if first_has_copy else 0) + staging,
            )
        case "original":
            slots = stream_slots
            if adapted and streamed:
                slots = min(SLOTS_TO_MERGE_ON_ARRIVAL, streamed)
            return Footprint(
                always=base + slots * u + factor_slots,
                host=(w.nbytes + factors if from_host else 0) + staging,
            )
        case "dynamic":
            host = (streamed * u if from_host else 0) + staging
            return Footprint(always=base + stream_slots * u + factors, host=host)
        case "fused":
            slots, kept = stream_slots, 0
            if adapted:
                kept = k * u + o
                wanted = SLOTS_TO_MERGE_ON_ARRIVAL if streamed > k else SLOTS
                slots = min(wanted, max(n - k, streamed if plain else 0))
            host = (streamed * u if from_host else 0) + staging
            return Footprint(always=base + slots * u + kept + factors, host=host)


def loaned_footprint(w: Weights, place: Place, unified: bool) -> Footprint:
    """Of a component with one weight set."""
    match place:
        case "resident":
            return Footprint(always=w.nbytes)
        case "snapshot":
            return Footprint(run=w.nbytes, host=w.nbytes)
        case "streamed":
            return Footprint(run=w.outside + min(SLOTS, w.blocks) * w.block, host=w.nbytes)
        case "disk":
            return Footprint(run=w.nbytes, host=0 if unified else w.largest)
