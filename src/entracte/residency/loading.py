"""Bringing weights into buffers, by a copy, a merge or a read, from the nearest place with them."""

from collections.abc import Callable

from entracte.residency.backends.protocol import Backend, Direction, Stream

from .buffer import Buffer
from .buffer_key import SCRATCH, STAGING, BlockWeights, BufferKey
from .merger import LoadedFactors, Merger
from .pending_read import PendingRead
from .plan import SLOTS
from .pool import WeightPool
from .recorder import Work
from .sharing import AwaitedFill
from .spec import WeightSet
from .unit_reader import UnitReader


class WeightLoader:
    """Loads the buffers of one component. Every method returns before the work is done.

    copies: the stream in which it copies.
    """

    def __init__(
        self, backend: Backend, pool: WeightPool, reader: UnitReader, copies: Stream
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._reader = reader
        self._copies = copies
        self._merger = Merger(backend, reader)
        self._turn = 0
        self._stored_turn = 0

    def load(self, target: Buffer, content: BlockWeights) -> None:
        """Make a device buffer hold a unit's weights.

        From a copy of just these weights, on the host or another device, if there is one; else
        expanded and merged from the base, which is on the device, in the target itself, in host
        memory, on another device or in the files.
        """
        target.withdraw()
        copy = self._pool.host_copy(content) or self._pool.peer_copy(content)
        if copy is not None:
            self._copy_in(target, copy, content)
        elif self._is_made(content):
            source, base = self._source(target, content)
            factors = self.factors(content.unit, content.of_weights)
            scratch = None
            if content.unit in self._reader.scratch:
                scratch = self._pool.ensure(SCRATCH)
            self._merger.merge(source, base, target, content, factors, scratch)
        else:
            self._read_to_device(target, content)

    def is_left_to_others(self, target: Buffer, content: BlockWeights) -> bool:
        """Whether another rank fills a host buffer, or it is filled already, for all ranks.

        It then holds, or will hold, the content.
        """
        if target.shared is None or target.shared.must_be_filled():
            return False
        target.join()
        target.expect(AwaitedFill(target.shared, self._pool.recorder, content))
        return True

    def load_host(self, target: Buffer, content: BlockWeights, by_way_of: Buffer) -> None:
        """Make a host buffer hold a unit's weights.

        Plain ones, as they are stored, are read from the files, unless the device has them. Merged
        ones are made on the device, in `by_way_of`, so that their bits are those of every other
        merge.
        """
        source = self._pool.on_device(content)
        if source is None:
            if not content.of_weights.adapters:
                self._read_to_host(target, content)
                return
            source = by_way_of
            self.load(source, content)
        copies, nbytes = self._copies, self._reader.nbytes(content)
        target.join()
        source.join()
        if target.shared is not None:
            target.pinned = target.shared.pin(fresh=True)
        with target.writing(copies, content), source.reading(copies):
            copies.copy(target.memory[:nbytes], source.memory[:nbytes], "out")
            copied = copies.record()
        shared = target.shared
        if shared is not None:

            def tell() -> None:
                copied.synchronize()
                shared.set_ready()

            self._leave_to_reader(target, content, "copy", tell)

    def load_factors(self, target: Buffer, content: BlockWeights) -> None:
        """Make a buffer, on the device or the host, hold an adapter's factors for a unit."""
        copy = self._pool.get(BufferKey("host", "factors", content.unit, content.adapter or ""))
        if target.key.tier == "host":
            self._read_to_host(target, content)
        elif copy is not None and copy.content == content:
            self._copy_in(target, copy, content)
        else:
            self._read_to_device(target, content)

    def factors(self, unit: int, weights: WeightSet) -> list[LoadedFactors]:
        """The factors of a set's adapters for a unit, loaded if need be."""
        found = []
        self._turn = (self._turn + 1) % SLOTS
        for adapter in weights.adapters:
            layout = self._reader.adapter(adapter.name)
            if not layout.names[unit]:
                continue
            buffer = self._pool.get(BufferKey("device", "factors", unit, adapter.name))
            if buffer is None:
                key = BufferKey("device", "factor slot", self._turn, adapter.name)
                buffer = self._pool.ensure(key)
            content = BlockWeights(unit, adapter=adapter.name)
            if buffer.content != content:
                self.load_factors(buffer, content)
            found.append(LoadedFactors(buffer, layout, adapter.strength))
        return found

    def prepare_merge(self, target: Buffer, content: BlockWeights) -> None:
        """Prepare the merge that will load a buffer, where its factors stay on the device."""
        if not self._is_made(content):
            return
        found: list[LoadedFactors] = []
        for adapter in content.of_weights.adapters:
            buffer = self._pool.get(BufferKey("device", "factors", content.unit, adapter.name))
            layout = self._reader.adapter(adapter.name)
            if layout.names[content.unit]:
                if buffer is None:
                    return
                found.append(LoadedFactors(buffer, layout, adapter.strength))
        base = self._reader.base(content)
        sources = [self._pool.on_device(base) or target]
        if base.stored and sources == [target]:
            slots = map(self._pool.get, self._pool.stored_slots)
            sources = [slot for slot in slots if slot is not None]
        scratch = self._pool.get(SCRATCH) if content.unit in self._reader.scratch else None
        if scratch is None and content.unit in self._reader.scratch:
            return
        for source in sources:
            self._merger.prepare(source, base, target, content, found, scratch)

    def forget_merges(self) -> None:
        """Drop all merges that were prepared: another plan needs other ones."""
        self._merger.forget()

    def _is_made(self, content: BlockWeights) -> bool:
        """Whether weights are expanded or merged, rather than read as they are."""
        return content != self._reader.base(content)

    def _source(self, target: Buffer, content: BlockWeights) -> tuple[Buffer, BlockWeights]:
        """A device buffer that weights can be made from, and what it holds of the unit.

        Plain weights that are expanded already are taken where they are, but for those that are
        quantised then. Else the base is brought: into the target itself, or, as it is stored in
        another form, into a slot for that.
        """
        plain, base = content.plain, self._reader.base(content)
        exact = not base.stored or content.unit not in self._reader.scratch
        if content != plain and exact:
            source = self._pool.on_device(plain)
            if source is None and target.content == plain:
                source = target
            if source is not None:
                return source, plain
        if not base.stored:
            self.load(target, base)
            return target, base
        source = self._pool.on_device(base)
        if source is None or source is target:  # nothing is expanded in place
            self._stored_turn = (self._stored_turn + 1) % len(self._pool.stored_slots)
            source = self._pool.ensure(self._pool.stored_slots[self._stored_turn])
            self.load(source, base)
        return source, base

    def _copy_in(self, target: Buffer, source: Buffer, content: BlockWeights) -> None:
        copies, nbytes = self._copies, self._reader.nbytes(content)
        direction: Direction = "peer" if source.key.tier == "peer" else "in"

        def copy() -> None:
            with source.reading(copies), target.writing(copies, content, source.key):
                copies.copy(target.memory[:nbytes], source.memory[:nbytes], direction)

        source.join()
        target.join()
        if source.pinned or self._backend.unified:
            copy()
        else:  # copying pageable memory would stop the host
            source.expect(self._leave_to_reader(target, content, "copy", copy))

    def _read_to_host(self, target: Buffer, content: BlockWeights) -> None:
        shared = target.shared

        def read() -> None:
            filled = False
            try:
                self._read(target, content)
                filled = True
            finally:
                if shared is not None:
                    shared.set_ready() if filled else shared.give_up()

        self._leave_to_reader(target, content, "read", read)

    def _read_to_device(self, target: Buffer, content: BlockWeights) -> None:
        """By way of the staging buffer, unless the host can write device memory."""
        if self._backend.unified:
            self._read_to_host(target, content)
            return
        copies, nbytes = self._copies, self._reader.nbytes(content)
        staging = self._staging(nbytes)

        def read_and_copy() -> None:
            self._read(staging, content)
            with staging.reading(copies), target.writing(copies, content):
                copies.copy(target.memory[:nbytes], staging.memory[:nbytes], "in")

        self._leave_to_reader(target, content, "read", read_and_copy)

    def _leave_to_reader(
        self, target: Buffer, content: BlockWeights, work: Work, fill: Callable[[], None]
    ) -> PendingRead:
        target.join()
        read = PendingRead(self._backend, self._pool.recorder, content, work, fill)
        target.expect(read)
        return read

    def _staging(self, nbytes: int) -> Buffer:
        staging = self._pool.get(STAGING)
        if staging is not None and staging.memory.nbytes < nbytes:
            self._pool.discard(STAGING)
            staging = None
        if staging is None:
            staging = self._pool.add(STAGING, max(self._reader.largest_read, nbytes))
        return staging

    def _read(self, target: Buffer, content: BlockWeights) -> None:
        with target.writing_on_host(content):
            self._backend.checks.host_writes(target.memory[: self._reader.nbytes(content)])
            self._reader.read(content, target.memory)
