"""A component's arenas: made, kept over a change of plan where they still serve, and given back."""

from collections.abc import Callable, Iterator

from torch import Tensor

from entracte.errors import OutOfMemory
from entracte.residency.backends.protocol import Backend, HostMemory

from .buffer import Arena, ArenaKey, Content, Tier
from .plan import ArenaPlan, Lifetime, Plan
from .recorder import ComponentJournal


class HostBudget:
    """What may be had of host memory, by all components together; None is no limit."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self._pinned_limit: int | None = None
        self._used = 0
        self._pinned = 0

    def set_limits(self, limit: int | None, pinned_limit: int | None) -> None:
        """Change the limits; what is taken stays taken."""
        self._limit = limit
        self._pinned_limit = pinned_limit

    def has_room(self, nbytes: int) -> bool:
        """Whether so many bytes more may be taken."""
        return self._limit is None or self._used + nbytes <= self._limit

    def may_pin(self, nbytes: int) -> bool:
        """Whether so many bytes more may be pinned."""
        return self._pinned_limit is None or self._pinned + nbytes <= self._pinned_limit

    def count(self, nbytes: int, pinned: bool) -> None:
        """Count memory that was taken, or, negative, given back."""
        self._used += nbytes
        if pinned:
            self._pinned += nbytes


class Stores:
    """The arenas of one component, by their keys. What an arena holds outlives a change of plan.

    on_free: called with an arena before its memory is given back.
    """

    def __init__(
        self,
        backend: Backend,
        budget: HostBudget,
        journal: ComponentJournal,
        on_free: Callable[[Arena], None],
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._budget = budget
        self._on_free = on_free
        self._weights: dict[int, list[Arena]] = {}  # on the device, by unit
        self._copies: dict[tuple[int, object], Arena] = {}  # on the host, by unit and weight set
        self._arenas: dict[ArenaKey, Arena] = {}
        self._freed: dict[ArenaKey, Tensor] = {}  # memory that may come again
        self._planned: dict[ArenaKey, ArenaPlan] = {}

    def __iter__(self) -> Iterator[Arena]:
        return iter(self._arenas.values())

    def get(self, key: ArenaKey) -> Arena | None:
        return self._arenas.get(key)

    def __getitem__(self, key: ArenaKey) -> Arena:
        return self._arenas[key]

    def adopt(self, plan: Plan) -> bool:
        """Take a plan's list of arenas; nothing is dropped or allocated yet.

        Returns whether its host arenas have room beside the present ones.
        """
        self._planned = {arena.key: arena for arena in plan.arenas}
        new = [p for p in plan.arenas if p.key.tier == "host" and p.key not in self._arenas]
        return self._budget.has_room(sum(planned.nbytes for planned in new))

    def drop_unlisted(self, tier: Tier) -> None:
        """Give back what the plan does not list, or lists with another size."""
        for key in [key for key in self._arenas if key.tier == tier and key.role != "staging"]:
            planned = self._planned.get(key)
            if planned is None or planned.nbytes != self._arenas[key].memory.nbytes:
                self._free(key)
        self._freed = {key: memory for key, memory in self._freed.items() if key in self._planned}

    def allocate(self, *lifetimes: Lifetime) -> None:
        """Allocate what the plan lists for some lifetimes and is not there yet.

        Raises OutOfMemory; what was allocated stays, and a later call goes on from there.
        """
        for planned in self._planned.values():
            if planned.lifetime in lifetimes and planned.key not in self._arenas:
                self.add(planned.key, planned.nbytes)

    def allocate_host(self) -> None:
        """Allocate the plan's host arenas; see `allocate`."""
        for planned in self._planned.values():
            if planned.key.tier == "host" and planned.key not in self._arenas:
                self.add(planned.key, planned.nbytes)

    def ensure(self, key: ArenaKey) -> Arena:
        """An arena of the plan, allocated if it is not there."""
        arena = self._arenas.get(key)
        return self.add(key, self._planned[key].nbytes) if arena is None else arena

    def add(self, key: ArenaKey, nbytes: int) -> Arena:
        """Allocate one arena; raises OutOfMemory."""
        try:
            if key.tier == "device":
                again = self._freed.pop(key, None)
                if again is not None and again.nbytes != nbytes:
                    again = None
                arena = Arena(key, self._backend.allocate(nbytes, again), self._journal)
            else:
                arena = self._host_arena(key, nbytes)
        except OutOfMemory as error:
            raise OutOfMemory(f"no memory for {key.role} {key.index}: {error}") from error
        self._arenas[key] = arena
        self._journal.memory(key, nbytes, arena.pinned)
        if key.tier == "device" and key.role == "weights":
            self._weights.setdefault(key.index, []).append(arena)
        elif key.role == "weights":
            self._copies[key.index, key.of] = arena
        return arena

    def _host_arena(self, key: ArenaKey, nbytes: int) -> Arena:
        host = self._backend.allocate_host(nbytes, pinned=self._budget.may_pin(nbytes))
        self._budget.count(nbytes, host.pinned)
        return Arena(key, host.bytes, self._journal, host.pinned)

    def release(self, *lifetimes: Lifetime) -> None:
        """Give the arenas of some lifetimes back."""
        for planned in self._planned.values():
            if planned.lifetime in lifetimes and planned.key in self._arenas:
                self._free(planned.key)

    def discard(self, key: ArenaKey) -> None:
        """Give one arena back, if it is there, once the reader thread is done with it."""
        if key in self._arenas:
            for arena in self:
                arena.retire()
            self._free(key)

    def host_copy(self, content: Content) -> Arena | None:
        """The host arena that holds a unit's weights."""
        arena = self._copies.get((content.unit, content.weights))
        return arena if arena is not None and arena.content == content else None

    def holding(self, content: Content) -> Arena | None:
        """A device arena that holds a unit's weights at a place of their own."""
        for arena in self._weights.get(content.unit, ()):
            if arena.content == content:
                return arena
        return None

    def close(self) -> None:
        """Give everything back."""
        for key in list(self._arenas):
            self._free(key)

    def _free(self, key: ArenaKey) -> None:
        arena = self._arenas.pop(key)
        arena.retire()
        self._on_free(arena)
        self._journal.memory(key, -arena.memory.nbytes, arena.pinned)
        if key.tier == "device":
            arena.settle(self._backend.compute)
            if key.role == "weights":
                self._weights[key.index].remove(arena)
            self._backend.free(arena.memory)
            self._freed[key] = arena.memory
        else:
            self._copies.pop((key.index, key.of), None)
            self._budget.count(-arena.memory.nbytes, arena.pinned)
            with self._journal.host_waits(arena.content, "copy"):
                self._backend.free_host(HostMemory(arena.memory, arena.pinned))
