"""Memory of the simulated accelerator and of its host: counted, limited, and known when freed."""

from typing import Literal

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from entracte.errors import OutOfMemory
from entracte.residency.backends.host import host_memory

from .clock import Timing
from .ordering import History, Participant
from .races import UseAfterRelease

Side = Literal["device", "host"]

POISON = 0xFF  # in bfloat16 and float32: not a number


class Room:
    """Bytes of one kind of memory: in use now, at most so far, and at most ever."""

    def __init__(self, kind: str, limit: int | None) -> None:
        self.used = 0
        self.peak = 0
        self._kind = kind
        self._limit = limit

    def has(self, nbytes: int) -> bool:
        return self._limit is None or self.used + nbytes <= self._limit

    def take(self, nbytes: int, refused: bool = False) -> None:
        """Count bytes as used. Raises OutOfMemory, also where `refused`."""
        if refused or not self.has(nbytes):
            limit = "none" if self._limit is None else f"{self._limit:,}"
            raise OutOfMemory(
                f"{self._kind} memory: {nbytes:,} bytes asked for, "
                f"{self.used:,} in use, limit {limit}" + (", and refused" if refused else "")
            )
        self.used += nbytes
        self.peak = max(self.peak, self.used)

    def give(self, nbytes: int) -> None:
        """Count bytes as free."""
        self.used -= nbytes


class Allocation:
    """A piece of memory, and what was done with it."""

    def __init__(self, number: int, place: Side, nbytes: int, pinned: bool) -> None:
        self.name = f"{place} memory {number} ({nbytes:,} bytes)"
        self.place = place
        self.nbytes = nbytes
        self.pinned = pinned
        self.lent = False
        self.history = History(self.name)
        self.memory: Tensor | None = host_memory(nbytes).fill_(POISON)
        self._storage = StorageWeakRef(self.memory.untyped_storage())
        self.address = self.memory.untyped_storage().data_ptr()

    @property
    def freed(self) -> bool:
        return self.memory is None

    @property
    def gone(self) -> bool:
        """Whether the memory is no longer referenced, so that its address may be reused."""
        return bool(self._storage.expired())

    def check(self, who: str) -> None:
        """Raise UseAfterRelease if it is freed."""
        if self.freed:
            raise UseAfterRelease(f"{who} uses {self.name}, which was freed")

    def read(self, who: Participant) -> None:
        """Note a read. Raises UseAfterRelease and UnorderedRead."""
        self.check(who.name)
        self.history.read(who)

    def write(self, who: Participant) -> None:
        """Note a write. Raises UseAfterRelease and UnorderedWrite."""
        self.check(who.name)
        self.history.write(who)


class GroupMemory:
    """What the devices of a group have in common: the host's memory, and what each may open.

    shared: host memory by name. opened: device memory of one that others may copy from, by address,
    with the engine of its device's link.
    """

    def __init__(self, host_limit: int | None, pinned_limit: int | None) -> None:
        self.host = Room("host", host_limit)
        self.pinned = Room("pinned", pinned_limit)
        self.shared: dict[str, Allocation] = {}
        self.opened: dict[int, tuple[Allocation, Timing]] = {}

    def find(self, address: int) -> Allocation | None:
        """Shared host memory, or opened device memory."""
        if address in self.opened:
            return self.opened[address][0]
        shared = (each for each in self.shared.values() if each.address == address)
        return next(shared, None)


class MemoryBook:
    """All memory that was allocated and is still referenced."""

    def __init__(self, device_limit: int | None, group: GroupMemory) -> None:
        self.device = Room("device", device_limit)
        self.host = group.host
        self.pinned = group.pinned
        self.group = group
        self._by_address: dict[int, Allocation] = {}
        self._count = 0

    def allocate(self, place: Side, nbytes: int, pinned: bool, refused: bool) -> Allocation:
        """Allocate poisoned memory, pageable if there is no room for pinned. Raises OutOfMemory."""
        pinned = pinned and self.pinned.has(nbytes)
        (self.device if place == "device" else self.host).take(nbytes, refused)
        if pinned:
            self.pinned.take(nbytes)
        self._forget()
        self._count += 1
        allocation = Allocation(self._count, place, nbytes, pinned)
        self._by_address[allocation.address] = allocation
        return allocation

    def share(self, name: str, allocation: Allocation) -> Allocation:
        """Make host memory the group's."""
        del self._by_address[allocation.address]
        self.group.shared[name] = allocation
        return allocation

    def owns(self, allocation: Allocation) -> bool:
        """Whether it is this device's."""
        return self._by_address.get(allocation.address) is allocation

    def free(self, allocation: Allocation) -> None:
        """Poison memory, and remember it as freed while it is referenced."""
        assert allocation.memory is not None
        allocation.memory.fill_(POISON)
        allocation.memory = None
        (self.device if allocation.place == "device" else self.host).give(allocation.nbytes)
        if allocation.pinned:
            self.pinned.give(allocation.nbytes)

    def find(self, tensor: Tensor) -> Allocation | None:
        """The allocation that a tensor lies in, if it is one of ours, or of the group's."""
        address = tensor.untyped_storage().data_ptr()
        allocation = self._by_address.get(address) or self.group.find(address)
        if allocation is not None and allocation.freed and allocation.gone:
            self._by_address.pop(address, None)
            self.group.opened.pop(address, None)
            return None
        return allocation

    def live(self) -> list[Allocation]:
        """All that is not freed."""
        return [each for each in self._by_address.values() if not each.freed]

    def _forget(self) -> None:
        self._by_address = {
            address: each
            for address, each in self._by_address.items()
            if not (each.freed and each.gone)
        }
