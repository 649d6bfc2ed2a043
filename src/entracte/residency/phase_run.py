"""One run of a component through its phases: which weights go where, and when."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from torch import nn

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend

from .buffer import Buffer
from .buffer_key import BlockWeights, BufferKey
from .checksum import BaseChecksum
from .loading import WeightLoader
from .plan import Plan
from .pool import WeightPool
from .prefetch import SlotRing, Throttle
from .prepare import prepare
from .spec import WeightSet

M = TypeVar("M", bound=nn.Module)

# A unit's weights in a phase, and the buffer that has them; None is a slot.
Use = tuple[BlockWeights, BufferKey | None]


class PhaseRun:
    """Loads every unit's weights before their use, and their successors after it.

    bound_module: the module over a buffer, for use of what it holds under a weight set.
    """

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        pool: WeightPool,
        loader: WeightLoader,
        checksum: BaseChecksum,
        bound_module: Callable[[Buffer, BlockWeights, WeightSet], nn.Module],
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._pool = pool
        self._loader = loader
        self._checksum = checksum
        self._bound_module = bound_module
        self._recorder = pool.recorder
        self._uses = [
            [
                (plan.content(unit, phase.weights), place)
                for unit, place in enumerate(plan.places[phase.weights])
            ]
            for phase in plan.phases
        ]
        slots = [pool[BufferKey("device", "slot", number)] for number in range(plan.slots)]
        self._ring = SlotRing(slots, loader.load)
        self._entered = -1
        self._inside = False
        self._sweeps_left = 0
        self._swept = False  # whether the phase's last sweep has ended
        self._sweeping: Generator[nn.Module] | None = None
        self._pace = Throttle(backend, loader, [], 0)

    def begin(self) -> None:
        """Start loading the first phase's weights."""
        prepare(self._plan, self._pool, self._loader)
        if self._plan.policy.mode == "fused":
            self._fill_base()
        self._catch_up(0)
        if self._plan.policy.mode == "snapshot":
            self._fill_what_is_outside()
        self._fill_factors()
        self._pool.offer_to_peers()
        self._ring.expect(self._slotted(0))
        if any(key is None for _, key in self._uses[0]):
            self._ring.advance()
        self._make_ready()

    @contextmanager
    def phase(self, index: int, kind: type[M]) -> Iterator[M]:
        """The component, of class `kind`, under a phase's weights; phases come in order, each once.

        Its list of blocks may be swept as often as the phase declares. The module and its blocks
        are
        lent: outside the block they may hold any weights.
        """
        if index != self._entered + 1 or self._inside or index >= len(self._plan.phases):
            raise ResidencyError(f"phase {index} was entered after phase {self._entered}")
        self._enter(index)
        content, rest = self._rest(index)
        weights = self._plan.phases[index].weights
        lent = [rest, *(self._unmerged_factors() if weights.adapters else ())]
        for buffer in lent:
            buffer.acquire(self._backend.compute)
            self._backend.checks.lend(buffer.memory)
        try:
            with self._backend.computing():
                module = self._bound_module(rest, content, weights)
                if not isinstance(module, kind):
                    found, name = type(module).__name__, self._plan.component
                    raise TypeError(f"{name} is a {found}, not a {kind.__name__}")
                yield module
        finally:
            self._inside = False
            if self._sweeping is not None:
                self._sweeping.close()
            if not self._swept:
                self._release_blocks()
            for buffer in lent:
                self._backend.checks.take_back(buffer.memory)
                buffer.release(self._backend.compute)
        self._ring.advance()
        if self._plan.rolling:
            self._catch_up(index + 1)
        if index + 1 == len(self._uses):
            self._pool.release("phase")

    def sweep(self) -> Iterator[nn.Module]:
        """The blocks from first to last, each ready to compute."""
        self._sweeping = self._blocks()
        return self._sweeping

    def _blocks(self) -> Generator[nn.Module]:
        if not self._inside or not self._sweeps_left:
            declared = self._plan.phases[max(self._entered, 0)].sweeps
            raise ResidencyError(
                f"{self._plan.component} is swept outside its phase, or more often than the "
                f"{declared} times that the phase was declared with"
            )
        self._sweeps_left -= 1
        weights = self._plan.phases[self._entered].weights
        compute, ring = self._backend.compute, self._ring
        with self._backend.checks.in_step():
            for content, key in self._uses[self._entered][:-1]:
                buffer = ring.take(content) if key is None else self._pool[key]
                buffer.acquire(compute)
                self._backend.checks.lend(buffer.memory)
                began = self._recorder.mark(compute)
                try:
                    yield self._bound_module(buffer, content, weights)
                finally:
                    if began is not None:
                        self._recorder.ran(content.unit, began)
                    self._backend.checks.take_back(buffer.memory)
                    if key is None or not self._sweeps_left:
                        buffer.release(compute)
                if key is None:
                    ring.give_back()
                    ring.advance()
                elif not self._sweeps_left and self._plan.rolling:
                    self._replace(buffer, content.unit)
                self._pace.keep()
        self._swept = not self._sweeps_left

    def _release_blocks(self) -> None:
        """Order later work after all sweeps, unless the last one has done so."""
        for _, key in self._uses[self._entered]:
            if key is not None:
                self._pool[key].release(self._backend.compute)

    def _enter(self, index: int) -> None:
        if index == 0:
            self._pool.allocate("phase")
        if not self._plan.rolling:
            self._catch_up(index)
        if self._sweeps_left:  # fewer than declared were made
            self._ring.expect(self._slotted(index))
            self._ring.advance()
        self._entered = index
        self._inside = True
        self._sweeps_left = self._plan.phases[index].sweeps
        self._swept = False
        self._checksum.check(self._pool, self._uses[index], self._plan)
        hand_overs = (len(self._uses[index]) - 1) * self._sweeps_left
        self._pace = Throttle(self._backend, self._loader, self._ahead(index), hand_overs)

    def _rest(self, index: int) -> tuple[BlockWeights, Buffer]:
        content, key = self._uses[index][-1]
        if key is None:
            raise RuntimeError("what is outside the blocks has no buffer of its own")
        return content, self._pool[key]

    def _following(self, index: int) -> int | None:
        """The next phase; the next request is assumed to begin like this one."""
        if index < len(self._uses):
            return index
        return 0 if self._plan.policy.stays else None

    def _catch_up(self, index: int) -> None:
        """Load what a phase will use and does not have yet."""
        following = self._following(index)
        if following is None:
            return
        *blocks, rest = self._uses[following]
        for content, key in (rest, *blocks):
            buffer = None if key is None else self._pool.get(key)
            if buffer is not None and buffer.content != content:
                self._loader.load(buffer, content)

    def _fill_base(self) -> None:
        """Load the base that stays, whether or not a phase uses it as it is."""
        for unit in (self._plan.blocks, *range(self._plan.blocks)):
            buffer = self._pool.get(BufferKey("device", "weights", unit))
            content = self._plan.base(unit)
            if buffer is not None and buffer.content != content:
                self._loader.load(buffer, content)

    def _fill_what_is_outside(self) -> None:
        """Load the weights outside the blocks for every phase: they have their own buffers, and
        stay.
        """
        for *_, (content, key) in self._uses:
            buffer = None if key is None else self._pool.get(key)
            if buffer is not None and buffer.content is None:
                self._loader.load(buffer, content)

    def _replace(self, buffer: Buffer, unit: int) -> None:
        """Load a unit's next weights into a buffer whose present ones are no longer needed."""
        following = self._following(self._entered + 1)
        if following is not None:
            content, key = self._uses[following][unit]
            if key == buffer.key and buffer.content != content:
                self._loader.load(buffer, content)

    def _ahead(self, index: int) -> list[tuple[Buffer, BlockWeights]]:
        """Buffers of the next phase that can be filled during this one."""
        if self._plan.policy.snapshot_policy != "aggressive" or index + 1 == len(self._uses):
            return []
        present = {key for _, key in self._uses[index]}
        ahead = []
        for content, key in self._uses[index + 1]:
            if key is not None and key not in present and self._pool[key].content != content:
                ahead.append((self._pool[key], content))
        return ahead

    def _fill_factors(self) -> None:
        """Load the factors that stay on the device, before they are needed."""
        for buffer in self._factors():
            content = BlockWeights(buffer.key.index, adapter=str(buffer.key.of))
            if buffer.content != content:
                self._loader.load_factors(buffer, content)

    def _factors(self) -> list[Buffer]:
        keys = [planned.key for planned in self._plan.buffers]
        return [self._pool[key] for key in keys if key.tier == "device" and key.role == "factors"]

    def _make_ready(self) -> None:
        """Create all modules to be lent, and prepare merges, so that no step waits for that."""
        slots = self._ring.slots
        for uses, phase in zip(self._uses, self._plan.phases, strict=True):
            for content, key in uses:
                buffers = slots if key is None else [self._pool.get(key)]
                for buffer in buffers:
                    if buffer is not None:
                        self._bound_module(buffer, content, phase.weights)
                        self._loader.prepare_merge(buffer, content)

    def _unmerged_factors(self) -> list[Buffer]:
        return self._factors() if self._plan.unmerged else []

    def _slotted(self, first: int) -> Iterator[BlockWeights]:
        """What passes through the slots, in order, from a phase on and into the next request."""
        for index in range(first, len(self._uses)):
            for _ in range(self._plan.phases[index].sweeps):
                yield from (content for content, key in self._uses[index] if key is None)
        if self._plan.policy.stays:
            first_sweep = (content for content, key in self._uses[0] if key is None)
            yield from islice(first_sweep, self._plan.slots)
