"""A component's tensors as its sources and adapters have them, unit by unit."""

from collections.abc import Collection, Iterable

from torch import Tensor, nn

from entracte.errors import ResidencyError

from .buffer_key import BlockWeights
from .layout import AdapterLayout, block_count, lay_out
from .spec import ComponentSpec, OpenAdapter


class UnitReader:
    """Lays out a component's units, and reads them.

    template: the component without weights. Raises ResidencyError where it does not fit its
    sources, or they do not fit each other.
    """

    def __init__(self, spec: ComponentSpec, template: nn.Module, open_adapter: OpenAdapter) -> None:
        self.component = spec.name
        self.sources = spec.sources
        self.specs = next(iter(spec.sources.values())).specs
        for name, source in spec.sources.items():
            if dict(source.specs) != dict(self.specs):
                raise ResidencyError(f"{spec.name}: the source {name} has other tensors")
        self.blocks = block_count(template, spec.blocks)
        self.layouts = lay_out(template, self.specs, spec.blocks)
        self._list_of_blocks = spec.blocks
        self._open_adapter = open_adapter
        self._adapters: dict[str, AdapterLayout] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of every unit."""
        return tuple(layout.nbytes for layout in self.layouts)

    def nbytes(self, content: BlockWeights) -> int:
        """Bytes of a unit's weights, or of an adapter's factors for it."""
        if content.adapter is not None:
            return self.adapter(content.adapter).layouts[content.unit].nbytes
        return self.layouts[content.unit].nbytes

    def adapter(self, name: str) -> AdapterLayout:
        """An adapter, opened and sorted by unit; its factors are not read. Raises ResidencyError
        where it does not fit the component.
        """
        if name not in self._adapters:
            source = self._open_adapter(self.component, name)
            adapter = AdapterLayout.of(source, self._list_of_blocks, self.blocks)
            adapter.check(self.specs)
            self._adapters[name] = adapter
        return self._adapters[name]

    def keep_adapters(self, names: Collection[str]) -> None:
        """Close all other adapters, and so their files."""
        self._adapters = {name: each for name, each in self._adapters.items() if name in names}

    def first_quantised(self, names: Iterable[str]) -> str | None:
        """The first of some parameters that is quantised."""
        return next((name for name in names if self.specs[name].quantised), None)

    def read(self, content: BlockWeights, memory: Tensor) -> None:
        """Write a unit's plain weights, or an adapter's factors, into host memory [nbytes] uint8.

        For the reader thread, which nothing else may read or write the memory beside.
        """
        if content.adapter is not None:
            self.adapter(content.adapter).read(content.unit, memory)
            return
        layout = self.layouts[content.unit]
        layout.clear_padding(memory)
        source = self.sources[content.of_weights.source]
        for entry, view in zip(layout.entries, layout.first_views(memory), strict=True):
            source.read(entry.names[0], view)
