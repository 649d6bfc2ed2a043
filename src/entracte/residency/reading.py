"""Reading weights and factors from the files, straight to where they stay."""

from collections.abc import Callable, Mapping

from entracte.residency.backends.protocol import Backend, Stream

from .buffer import STAGING, BlockWeights, Buffer
from .component import WeightSource
from .factors import AdapterFactors
from .layout import Layout
from .pool import WeightPool


class FileReader:
    """Fills buffers of one component from its sources and adapters, in the reader thread.

    adapter: an adapter by its name. copies: the stream in which it copies to the device.
    """

    def __init__(
        self,
        backend: Backend,
        pool: WeightPool,
        layouts: tuple[Layout, ...],
        sources: Mapping[str, WeightSource],
        adapter: Callable[[str], AdapterFactors],
        copies: Stream,
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._layouts = layouts
        self._sources = sources
        self._adapter = adapter
        self._copies = copies

    def nbytes(self, content: BlockWeights) -> int:
        """How much memory a content takes."""
        if content.adapter is not None:
            return self._adapter(content.adapter).layouts[content.unit].nbytes
        return self._layouts[content.unit].nbytes

    def to_host(self, target: Buffer, content: BlockWeights) -> None:
        """Fill a buffer in host memory."""
        target.expect(
            content,
            lambda: self._backend.read_ahead(lambda: self._read(target, content)),
            "read",
        )

    def to_device(self, target: Buffer, content: BlockWeights) -> None:
        """Fill a buffer on the device, by way of the staging buffer if need be."""
        if self._backend.unified:
            self.to_host(target, content)
            return
        nbytes, copies = self.nbytes(content), self._copies
        staging = self._staging(nbytes)

        def task() -> None:
            self._read(staging, content)
            with staging.reading(copies), target.writing_in_task(copies, content):
                copies.copy(target.memory[:nbytes], staging.memory[:nbytes], "in")

        target.expect(content, lambda: self._backend.read_ahead(task), "read")

    def _staging(self, nbytes: int) -> Buffer:
        staging = self._pool.get(STAGING)
        if staging is not None and staging.memory.nbytes < nbytes:
            self._pool.discard(STAGING)
            staging = None
        if staging is None:
            largest = max(layout.nbytes for layout in self._layouts)
            staging = self._pool.add(STAGING, max(largest, nbytes))
        return staging

    def _read(self, target: Buffer, content: BlockWeights) -> None:
        with target.writing_on_host(content):
            self._backend.host_writes(target.memory[: self.nbytes(content)])
            if content.adapter is not None:
                self._adapter(content.adapter).read(content.unit, target.memory)
                return
            self._layouts[content.unit].clear_padding(target.memory)
            source = self._sources[content.of_weights.source]
            layout = self._layouts[content.unit]
            views = layout.first_views(target.memory)
            for entry, view in zip(layout.entries, views, strict=True):
                source.read(entry.names[0], view)
