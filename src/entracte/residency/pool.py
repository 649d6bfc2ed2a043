"""A component's buffers: allocated, kept across plans while useful, and freed."""

from collections.abc import Callable, Iterator

from torch import Tensor

from entracte.errors import OutOfMemory
from entracte.residency.backends.protocol import Backend, HostMemory

from .buffer import Buffer
from .buffer_key import STAGING, BlockWeights, BufferKey, Tier
from .peer_copies import PeerCopies
from .plan import BufferPlan, Lifetime, Plan, RankShare
from .recorder import ComponentRecorder
from .sharing import SharedEntry


class HostBudget:
    """Limits on host memory for all components together; None: no limit.

    What ranks share counts in full with each of them, and so once against limits that are for all.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._pinned_limit: int | None = None
        self._used = 0
        self._pinned = 0

    def set_limits(self, limit: int | None, pinned_limit: int | None) -> None:
        """Change the limits; memory in use is kept."""
        self._limit = limit
        self._pinned_limit = pinned_limit

    def has_room(self, nbytes: int) -> bool:
        """Whether that many more bytes may be allocated."""
        return self._limit is None or self._used + nbytes <= self._limit

    def may_pin(self, nbytes: int) -> bool:
        """Whether that many more bytes may be pinned."""
        return self._pinned_limit is None or self._pinned + nbytes <= self._pinned_limit

    def count(self, nbytes: int, pinned: bool) -> None:
        """Count allocated bytes, or freed ones (negative)."""
        self._used += nbytes
        if pinned:
            self._pinned += nbytes


class WeightPool:
    """The buffers of one component, by key. Contents survive a change of plan.

    together: whether all ranks of a group use the component at the same time.
    on_free: called with a buffer before its memory is freed.
    """

    def __init__(
        self,
        component: str,
        together: bool,
        backend: Backend,
        budget: HostBudget,
        recorder: ComponentRecorder,
        on_free: Callable[[Buffer], None],
    ) -> None:
        self._component = component
        self._together = together
        self._backend = backend
        self.recorder = recorder
        self._budget = budget
        self._on_free = on_free
        self._plan: Plan | None = None
        self.peer_copies = PeerCopies(backend, component, recorder)
        self._weights: dict[int, list[Buffer]] = {}  # on the device, by unit
        self._copies: dict[tuple[int, object], Buffer] = {}  # on the host, by unit and weight set
        self._buffers: dict[BufferKey, Buffer] = {}
        self._freed: dict[BufferKey, Tensor] = {}  # memory that may be allocated again
        self._planned: dict[BufferKey, BufferPlan] = {}
        self.stored_slots: list[BufferKey] = []  # that the plan lists

    def __iter__(self) -> Iterator[Buffer]:
        return iter(self._buffers.values())

    def get(self, key: BufferKey) -> Buffer | None:
        return self._buffers.get(key)

    def __getitem__(self, key: BufferKey) -> Buffer:
        return self._buffers[key]

    def adopt(self, plan: Plan) -> bool:
        """Adopt a plan's list of buffers; nothing is freed or allocated yet.

        Returns whether its host buffers have room beside the present ones.
        """
        if plan != self._plan:
            self.peer_copies.unmap()
        self._plan = plan
        self._planned = {buffer.key: buffer for buffer in plan.buffers}
        self.stored_slots = [key for key in self._planned if key.role == "stored slot"]
        new = [p for p in plan.buffers if p.key.tier == "host" and p.key not in self._buffers]
        return self._budget.has_room(sum(planned.nbytes for planned in new))

    def drop_unlisted(self, tier: Tier) -> None:
        """Free buffers that the plan does not list, or lists with another size."""
        for key in [key for key in self._buffers if key.tier == tier and key.role != "staging"]:
            planned = self._planned.get(key)
            held = self._buffers[key]
            if planned is None or (planned.nbytes, planned.for_peers) != (
                held.memory.nbytes,
                held.for_peers,
            ):
                self._free(key)
        self._freed = {key: memory for key, memory in self._freed.items() if key in self._planned}

    def allocate(self, *lifetimes: Lifetime) -> None:
        """Allocate the missing buffers of some lifetimes.

        Raises OutOfMemory; what was allocated is kept, and a later call continues from there.
        """
        for planned in self._planned.values():
            if planned.lifetime in lifetimes and planned.key not in self._buffers:
                self.add(planned.key, planned.nbytes, planned.for_peers)

    def allocate_host(self) -> None:
        """Allocate the plan's host buffers; see `allocate`."""
        for planned in self._planned.values():
            if planned.key.tier == "host" and planned.key not in self._buffers:
                self.add(planned.key, planned.nbytes)

    def ensure(self, key: BufferKey) -> Buffer:
        """A buffer of the plan, allocated if missing."""
        buffer = self._buffers.get(key)
        planned = self._planned[key]
        return self.add(key, planned.nbytes, planned.for_peers) if buffer is None else buffer

    def add(self, key: BufferKey, nbytes: int, for_peers: bool = False) -> Buffer:
        """Allocate one buffer; raises OutOfMemory."""
        try:
            if key.tier == "device":
                again = self._freed.pop(key, None)
                if again is not None and again.nbytes != nbytes:
                    again = None
                if for_peers:
                    memory = self._backend.allocate_for_peers(nbytes)
                else:
                    memory = self._backend.allocate(nbytes, again)
                buffer = Buffer(key, memory, self.recorder, for_peers=for_peers)
            else:
                buffer = self._host_buffer(key, nbytes)
        except OutOfMemory as error:
            raise OutOfMemory(f"no memory for {key.role} {key.index}: {error}") from error
        self._buffers[key] = buffer
        self.recorder.memory(key, nbytes, buffer.pinned)
        if key.tier == "device" and key.role == "weights":
            self._weights.setdefault(key.index, []).append(buffer)
        elif key.role == "weights":
            self._copies[key.index, key.of] = buffer
        return buffer

    def _host_buffer(self, key: BufferKey, nbytes: int) -> Buffer:
        board, peers = self._backend.board, self._backend.peers
        name = None if board is None or key == STAGING else f"{self._component} {key}"
        host = self._backend.allocate_host(nbytes, self._budget.may_pin(nbytes), name)
        self._budget.count(nbytes, host.pinned)
        shared = None
        if board is not None and host.name is not None:
            # All ranks run the adapted component together. Others may be borrowed by some alone.
            mine = RankShare(peers.rank, peers.size).has(key.index) if self._together else None
            shared = SharedEntry(self._backend, host.name, host, mine)
        return Buffer(key, host.bytes, self.recorder, host.pinned, shared)

    def release(self, *lifetimes: Lifetime) -> None:
        """Free the buffers of some lifetimes."""
        for planned in self._planned.values():
            if planned.lifetime in lifetimes and planned.key in self._buffers:
                self._free(planned.key)

    def discard(self, key: BufferKey) -> None:
        """Free one buffer, if it exists, once the reader thread is done with all."""
        if key in self._buffers:
            for buffer in self:
                buffer.abandon()
            self._free(key)

    def host_copy(self, content: BlockWeights) -> Buffer | None:
        """The host buffer that holds a unit's weights."""
        buffer = self._copies.get((content.unit, content.weights))
        return buffer if buffer is not None and buffer.content == content else None

    def peer_copy(self, content: BlockWeights) -> Buffer | None:
        """Another rank's buffer that holds a block's weights; waits until that rank offers it."""
        plan = self._plan
        if plan is None or content.unit in plan.resident or not plan.is_among_peers(content):
            return None
        return self.peer_copies.get(content, plan.share.owner(content.unit))

    def offer_to_peers(self) -> None:
        """Let other ranks copy what the plan keeps here for them."""
        for planned in self._planned.values():
            content = None if self._plan is None else self._plan.for_peers(planned.key)
            if planned.for_peers and content is not None:
                self.peer_copies.offer(self[planned.key], content)

    def on_device(self, content: BlockWeights) -> Buffer | None:
        """A device buffer of its own that holds a unit's weights."""
        for buffer in self._weights.get(content.unit, ()):
            if buffer.content == content:
                return buffer
        return None

    def close(self) -> None:
        """Free everything, once the reader thread is done with it."""
        self.peer_copies.unmap()
        for buffer in self:
            buffer.abandon()
        for key in list(self._buffers):
            self._free(key, closing=True)

    def _free(self, key: BufferKey, closing: bool = False) -> None:
        buffer = self._buffers.pop(key)
        buffer.abandon()
        if buffer.for_peers:  # at the end nobody copies, and ranks may be gone
            self.peer_copies.take_back(buffer, wait=not closing)
        self._on_free(buffer)
        self.recorder.memory(key, -buffer.memory.nbytes, buffer.pinned)
        if key.tier == "device":
            buffer.settle(self._backend.compute)
            if key.role == "weights":
                self._weights[key.index].remove(buffer)
            self._backend.free(buffer.memory)
            if not buffer.for_peers:
                self._freed[key] = buffer.memory
        else:
            self._copies.pop((key.index, key.of), None)
            self._budget.count(-buffer.memory.nbytes, buffer.pinned)
            with self.recorder.host_waits(buffer.content, "copy"):
                name = None if buffer.shared is None else buffer.shared.name
                self._backend.free_host(HostMemory(buffer.memory, buffer.pinned, name))
