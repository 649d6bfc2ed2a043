"""Bringing weights into a buffer: by a copy, a merge, or both; from wherever they are."""

from collections.abc import Callable
from functools import partial

from entracte.residency.backends.protocol import Backend, Stream

from .buffer import BlockWeights, Buffer, BufferKey, Writing
from .factors import AdapterFactors
from .layout import Layout
from .merger import Merger, Ready
from .pool import WeightPool
from .reading import FileReader
from .weights import WeightSet


class Filler:
    """Fills the buffers of one component. Every method returns before the work is done.

    files: fills what only the files hold. adapter: an adapter by its name. copies: the stream in
    which it copies.
    """

    def __init__(
        self,
        backend: Backend,
        pool: WeightPool,
        layouts: tuple[Layout, ...],
        files: FileReader,
        adapter: Callable[[str], AdapterFactors],
        copies: Stream,
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._copies = copies
        self._files = files
        self._merger = Merger(backend, pool, layouts, adapter, self.fill_factors)

    def fill(self, target: Buffer, content: BlockWeights) -> None:
        """Make a device buffer hold a unit's weights.

        From a host copy of just these weights, if there is one; else merged from the base, which
        is on the device, in the target itself, in host memory or in the files.
        """
        weights = content.of_weights
        copy = self._pool.host_copy(content)
        if copy is not None:
            self._copy_in(target, copy, content)
        elif weights.adapters:
            base = content.base
            source = self._pool.on_device(base)
            if source is None:
                source = target
                if target.content != base:
                    self.fill(target, base)
            self._merger.merge(source, target, content)
        else:
            self._files.to_device(target, content)

    def fill_host(self, target: Buffer, content: BlockWeights, by_way_of: Buffer) -> None:
        """Make a host buffer hold a unit's weights.

        Plain ones are read from the files, unless the device has them. Merged ones are made on the
        device, in `by_way_of`, so that their bits are those of every other merge.
        """
        weights = content.of_weights
        source = self._pool.on_device(content)
        if source is None:
            if not weights.adapters:
                self._files.to_host(target, content)
                return
            source = by_way_of
            self.fill(source, content)
        copies, nbytes = self._copies, self._files.nbytes(content)
        with target.writing(copies, content), source.reading(copies):
            copies.copy(target.memory[:nbytes], source.memory[:nbytes], "out")

    def fill_factors(self, target: Buffer, content: BlockWeights) -> None:
        """Make a buffer, on the device or the host, hold an adapter's factors for a unit."""
        copy = self._pool.get(BufferKey("host", "factors", content.unit, content.adapter or ""))
        if target.key.tier == "host":
            self._files.to_host(target, content)
        elif copy is not None and copy.content == content:
            self._copy_in(target, copy, content)
        else:
            self._files.to_device(target, content)

    def factors(self, unit: int, weights: WeightSet) -> list[Ready]:
        """Buffers that hold the factors of a set's adapters for a unit, filled if need be."""
        return self._merger.factors(unit, weights)

    def forget_merges(self) -> None:
        """Drop all merges that were prepared: another plan needs other ones."""
        self._merger.forget()

    def prepare(self, target: Buffer, content: BlockWeights) -> None:
        """Prepare the merge that will fill a buffer, where its factors stay on the device."""
        self._merger.prepare(target, content)

    def _copy_in(self, target: Buffer, source: Buffer, content: BlockWeights) -> None:
        copies, nbytes = self._copies, self._files.nbytes(content)

        def copy(writing: Writing) -> None:
            with source.reading(copies), writing:
                copies.copy(target.memory[:nbytes], source.memory[:nbytes], "in")

        if source.pinned or self._backend.unified:
            copy(target.writing(copies, content))
        else:  # it would stop the host
            source.join()
            task = partial(copy, target.writing_in_task(copies, content))
            target.expect(content, lambda: self._backend.read_ahead(task), "copy")
