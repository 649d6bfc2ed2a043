"""How long a request waits for weights, in closed form but for swaps, which go block by block.

The link brings one thing after another; the device computes, or merges, one thing after another;
the two go on at once, but on a unified machine, where everything takes turns.
`docs/explanation/planner.md` has the formulas; all times are in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from entracte.machine.hardware import Hardware
from entracte.residency import Mode, Place, Plan, Sizes, SnapshotPolicy

from .candidates import Home

# By what share of their time blocks take longer while others are copied from another device, beside
# which six products took 7.64 ms instead of 6.99 on an H200.
BESIDE_PEERS = 0.09


@dataclass(frozen=True, slots=True)
class CopiedBytes:
    """A component's sizes in bytes, blocks taken to be of one size, the largest.

    factors: of all adapters together. stored_block, stored_outside: as they are stored, which is
    how plain weights come; the block's is the mean.
    """

    blocks: int
    block: int
    outside: int
    factors: int
    stored_block: int
    stored_outside: int

    @classmethod
    def of(cls, sizes: Sizes) -> "CopiedBytes":
        *blocks, outside = sizes.units
        *stored_blocks, stored_outside = sizes.at_rest
        factors = sum(sum(each) for each in sizes.factors.values())
        # Files keep some blocks in the model's dtype.
        stored = sum(stored_blocks) // max(1, len(blocks))
        return cls(len(blocks), max(blocks, default=0), outside, factors, stored, stored_outside)

    @property
    def nbytes(self) -> int:
        return self.blocks * self.block + self.outside

    @property
    def stored(self) -> int:
        """Bytes of all plain weights as they are stored."""
        return self.blocks * self.stored_block + self.stored_outside


@dataclass(frozen=True, slots=True)
class Sweeps:
    """A phase's loop: so many sweeps over the blocks, each block computing for `block` seconds.

    weights: which of the request's weight sets. merge: seconds to merge one block of that set, 0
    for the plain one. outside: the same for what is outside the blocks. expand: seconds to expand
    one block, where blocks are stored in another form; the mean. beside_copies: by what share of
    its time a block takes longer while the link is busy.
    """

    count: int
    block: float
    weights: int
    merge: float = 0.0
    outside: float = 0.0
    expand: float = 0.0
    beside_copies: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """What of the transformer's plan matters to its schedule.

    home: where those come from.
    streamed: for every block, whether its base comes through a slot in each sweep. made: how many
    blocks are merged or expanded before each use under a set that needs it, in mode `fused`.
    coming: how many of those are streamed. slots: how many there are.
    """

    mode: Mode
    policy: SnapshotPolicy
    home: Home
    streamed: tuple[bool, ...]
    made: int
    coming: int
    slots: int

    @classmethod
    def of(cls, plan: Plan) -> "Held":
        blocks = range(plan.blocks)
        made = [block for block in blocks if block not in plan.kept]
        return cls(
            plan.policy.mode,
            plan.policy.snapshot_policy,
            plan.policy.home,
            tuple(block not in plan.resident for block in blocks),
            len(made),
            sum(block not in plan.resident for block in made),
            plan.slots,
        )

    @property
    def resident(self) -> int:
        """How many blocks' base stays on the device."""
        return self.streamed.count(False)

    @property
    def kept(self) -> int:
        """How many blocks stay merged, or expanded, in mode `fused`."""
        return len(self.streamed) - self.made


def expand_seconds(stored: int, nbytes: int, hardware: Hardware) -> float:
    """Expanding a unit that is stored in another form: reading the one, and writing the other."""
    return (stored + nbytes) / hardware.rates.device_copy


def merge_seconds(nbytes: int, factors: int, flops: float, hardware: Hardware) -> float:
    """Merging adapters into a unit: by its arithmetic or its traffic, whichever is slower."""
    rates = hardware.rates
    return max(flops / rates.merge, (2 * nbytes + factors) / rates.device_copy)


def link_rate(home: Place | Home, hardware: Hardware) -> float:
    """Bytes per second to the device. From files each unit is read, and then copied."""
    rates = hardware.rates
    if home == "peer" and hardware.peers is not None:
        return hardware.peers.copy
    if home != "disk":
        return rates.h2d
    return rates.disk if hardware.unified else 1 / (1 / rates.disk + 1 / rates.h2d)


def loan_wait(w: CopiedBytes, place: Place, compute: float, hardware: Hardware) -> float:
    """How much longer a stage takes because its component comes for it.

    What is outside the blocks comes first; block i computes when it is there and block i - 1 done.
    """
    if place == "resident":
        return 0.0
    rate = link_rate(place, hardware)
    if hardware.unified or not w.blocks:
        return w.stored / rate
    each, outside = w.stored_block / rate, w.stored_outside / rate
    compute_bound, link_bound = each, w.stored / rate - outside
    link_bound -= (w.blocks - 1) * compute / w.blocks
    return outside + max(compute_bound, link_bound)


@dataclass(frozen=True, slots=True)
class BusyUntil:
    """When the device is done with what it was given, and when the link is."""

    now: float = 0.0
    link: float = 0.0

    def computed(self, seconds: float) -> "BusyUntil":
        return BusyUntil(self.now + seconds, self.link)

    def brought(self, seconds: float, wait: float) -> "BusyUntil":
        """Something came over the link, after all before it, and was waited for."""
        start = max(self.now, self.link)
        return BusyUntil(start + wait, start + seconds)


class Loops:
    """The transformer's loops under one plan, and the switches between them."""

    def __init__(
        self, w: CopiedBytes, held: Held, phases: Sequence[Sweeps], hardware: Hardware
    ) -> None:
        self._w = w
        self._held = held
        self._phases = phases
        self._unified = hardware.unified
        self._rate = link_rate(held.home, hardware)
        self._host_rate = hardware.rates.h2d
        self._streamed = held.streamed.count(True)
        self._resident_bytes = held.resident * w.block + w.outside
        self._changes = any(phase.weights != phases[0].weights for phase in phases)
        swapping = (held.mode, held.policy) == ("snapshot", "low-vram")
        self._swaps = swapping and self._changes
        # Whether weights come between the loops, so that other stages' weights wait for them.
        self.linked = self._swaps or (held.mode == "original" and self._changes)
        self._arrivals: list[float] = []  # of every block's next weights, where they are swapped
        self.switch = 0.0  # what the second phase waited before its first block

    def begin(self, clock: BusyUntil) -> BusyUntil:
        """A request begins: what its first phase needs and the last one did not leave."""
        if self._held.mode == "original" and self._changes:
            return BusyUntil(clock.now, max(clock.now, clock.link) + self._restoring())
        return clock

    def run(self, number: int, clock: BusyUntil) -> BusyUntil:
        """The loop of a phase; what was brought for it is waited for."""
        ready = clock
        if self._held.mode == "original" and self._changes:
            clock = self._merged_in_place(number, clock)
        elif self._held.mode == "snapshot" and self._held.policy == "aggressive" and self._changes:
            clock = self._copied_ahead(number, clock)
        elif self._swaps and not self._unified:
            if number and self._arrivals:
                self.switch = max(0.0, self._arrivals[0] - clock.now)
            return self._swapping(number, clock)
        if number:
            self.switch = clock.now - ready.now
        clock = clock.computed(self._steady(number))
        if self._swaps:
            clock = clock.computed(self._held.resident * self._w.block / self._host_rate)
        if self._held.mode == "fused" and self._changes:
            clock = clock.computed(self._kept_again(number))
        return clock

    def _steady(self, number: int) -> float:
        """A loop whose every sweep takes the same: computing and merging, or the link."""
        phase, w, held = self._phases[number], self._w, self._held
        made, streamed, rate = 0, self._streamed, self._rate
        block, factors, coming = w.stored_block, 0.0, streamed
        if held.mode == "fused" and (phase.merge or phase.expand):
            made, coming = held.made, held.coming
        elif phase.merge and held.mode == "original":
            made = streamed
            factors = self._block_factors()
        elif phase.merge and held.mode == "snapshot":
            rate, block = self._host_rate, w.block
        elif phase.expand and held.mode != "resident":
            made = w.blocks if held.mode == "dynamic" else streamed
        nbytes = coming * (block + factors)
        computing = w.blocks * phase.block
        if phase.merge and held.mode == "dynamic":
            # Two narrow products beside every wide one: as much more as there are more weights.
            computing *= 1 + w.factors / w.nbytes
        merge = 0.0 if held.mode == "dynamic" else phase.merge
        work = phase.count * (computing + made * (merge + phase.expand))
        link = phase.count * nbytes / rate
        if self._unified:
            return work + link
        if link and work:
            beside = BESIDE_PEERS if held.home == "peer" else phase.beside_copies
            work += phase.count * computing * beside * min(1.0, link / work)
        if link <= work:
            return work
        # The first blocks came before the loop began; the last one computes after it has come.
        ahead = min(held.slots, streamed) * block / rate
        return max(work, link - ahead + phase.block)

    def _kept_again(self, number: int) -> float:
        """Kept blocks, if both sets are merged or expanded, are made again for the next phase."""
        following = self._phases[(number + 1) % len(self._phases)]
        if not all(phase.merge or phase.expand for phase in self._phases):
            return 0.0
        return self._held.kept * (following.merge + following.expand) + following.outside

    def _block_factors(self) -> float:
        return self._w.factors / (self._w.blocks + 1)

    def _restoring(self) -> float:
        w = self._w
        return (self._held.resident * w.stored_block + w.stored_outside) / self._rate

    def _merged_in_place(self, number: int, clock: BusyUntil) -> BusyUntil:
        """The base is restored, in whole, before the first loop, and merged before the second."""
        phase = self._phases[number]
        if number == 0:
            return BusyUntil(max(clock.now, clock.link), clock.link)
        factors = self._block_factors() / self._rate
        merges = self._held.resident * phase.merge + phase.outside
        if self._unified:
            return clock.computed(merges + (self._held.resident + 1) * factors)
        # Factors come while blocks compute, but for the first ones.
        late = max(0.0, self._held.resident * (factors - phase.merge - phase.block))
        return clock.computed(factors + merges + late)

    def _copied_ahead(self, number: int, clock: BusyUntil) -> BusyUntil:
        """The second set comes during the first loop, into memory of its own."""
        if number == 0:
            return clock
        copied = self._resident_bytes / self._host_rate
        if self._unified:
            return clock.computed(copied)
        streaming = self._phases[0].count * self._streamed * self._w.stored_block / self._rate
        return clock.computed(max(0.0, copied + streaming - self._steady(0)))

    def _swapping(self, number: int, clock: BusyUntil) -> BusyUntil:
        """A loop whose resident blocks are replaced in its last sweep, one after another."""
        phase, w = self._phases[number], self._w
        if phase.count == 0:
            return clock
        steady = self._steady(number) / phase.count
        if not self._arrivals:
            self._arrivals = [0.0] * w.blocks
        if phase.count == 1:
            return self._sweep(number, clock, swaps=True)
        clock = self._sweep(number, clock, swaps=False)
        skipped = (phase.count - 2) * steady
        self._arrivals = [arrival + skipped for arrival in self._arrivals]
        clock = BusyUntil(clock.now + skipped, clock.link + skipped)
        return self._sweep(number, clock, swaps=True)

    def _sweep(self, number: int, clock: BusyUntil, swaps: bool) -> BusyUntil:
        """One sweep, block by block. Streamed blocks come through slots, in the order of use."""
        w, now, link = self._w, clock.now, clock.link
        each, phase = w.block / self._host_rate, self._phases[number]
        compute = phase.block * (1 + (phase.beside_copies if swaps or self._streamed else 0.0))
        comes, slots, arrivals = self._held.streamed, self._held.slots, list(self._arrivals)
        streamed = [block for block in range(w.blocks) if comes[block]]
        upcoming = dict(zip(streamed, streamed[slots:], strict=False))
        wrapped = dict(zip(streamed[-slots:], streamed[:slots], strict=False)) if streamed else {}
        for block in range(w.blocks):
            now = max(now, arrivals[block]) + compute
            following = block
            if comes[block]:
                following = upcoming.get(block, wrapped.get(block, block))
            if swaps or comes[block]:
                link = max(link, now) + each
                arrivals[following] = link
        self._arrivals = arrivals
        return BusyUntil(now, link)
