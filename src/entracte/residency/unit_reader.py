"""A component's tensors as its sources and adapters have them, unit by unit."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from entracte.errors import ResidencyError

from .buffer_key import BlockWeights
from .layout import (
    AdapterLayout,
    UnitLayout,
    as_stored,
    block_count,
    computed_parts,
    lay_out,
    unit_of,
)
from .spec import ComponentSpec, OpenAdapter, TensorSpec


class UnitReader:
    """Lays out a component's units, and reads them.

    layouts: of every unit, as it is computed with. expanded: the units that are stored in another
    form, by number, with their layouts as they are stored. scratch: of the units with parameters
    that are computed with in another form than they are expanded to, those parameters, expanded.

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
        self.layouts = lay_out(template, computed_parts(self.specs), spec.blocks)
        stored = [as_stored(layout, self.specs) for layout in self.layouts]
        self.expanded: Mapping[int, UnitLayout] = {
            unit: layout for unit, layout in enumerate(stored) if layout is not self.layouts[unit]
        }
        self.scratch = scratch_layouts(self.specs, spec.blocks, self.blocks)
        self._list_of_blocks = spec.blocks
        self._open_adapter = open_adapter
        self._adapters: dict[str, AdapterLayout] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of every unit, as it is computed with."""
        return tuple(layout.nbytes for layout in self.layouts)

    @property
    def stored_sizes(self) -> Mapping[int, int]:
        """Bytes of the units that are stored in another form, as they are stored."""
        return {unit: layout.nbytes for unit, layout in self.expanded.items()}

    @property
    def scratch_size(self) -> int:
        """Bytes that any unit's weights take while they are expanded, merged and quantised."""
        return max((layout.nbytes for layout in self.scratch.values()), default=0)

    @property
    def largest_read(self) -> int:
        """Bytes of the largest unit, as it is stored."""
        stored = (self.expanded.get(unit, layout) for unit, layout in enumerate(self.layouts))
        return max(layout.nbytes for layout in stored)

    def base(self, content: BlockWeights) -> BlockWeights:
        """What the sources have of a unit: its weights without adapters, as they are stored."""
        return replace(content.plain, stored=content.unit in self.expanded)

    def layout(self, content: BlockWeights) -> UnitLayout:
        """How a unit's weights lie."""
        unit = content.unit
        return self.expanded[unit] if content.stored else self.layouts[unit]

    def nbytes(self, content: BlockWeights) -> int:
        """Bytes of a unit's weights, or of an adapter's factors for it."""
        if content.adapter is not None:
            return self.adapter(content.adapter).layouts[content.unit].nbytes
        return self.layout(content).nbytes

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

    def first_unmergeable(self, names: Iterable[str]) -> str | None:
        """The first of some parameters that no adapter can be merged into."""
        return next((name for name in names if not self.specs[name].mergeable), None)

    def read(self, content: BlockWeights, memory: Tensor) -> None:
        """Write what the sources have of a unit, or an adapter's factors, into host memory.

        memory: [nbytes] uint8. For the reader thread: nothing else may read or write it meanwhile.
        """
        if content.adapter is not None:
            self.adapter(content.adapter).read(content.unit, memory)
            return
        layout = self.layout(content)
        layout.clear_padding(memory)
        source = self.sources[content.of_weights.source]
        for entry, view in zip(layout.entries, layout.first_views(memory), strict=True):
            source.read(entry.names[0], view)


def scratch_layouts(
    specs: Mapping[str, TensorSpec], blocks: str | None, count: int
) -> dict[int, UnitLayout]:
    """By unit, the parameters that are computed with in another form, as they are expanded."""
    units: dict[int, list[tuple[tuple[str, ...], TensorSpec]]] = {}
    for name, spec in specs.items():
        if spec.computed is not None:
            units.setdefault(unit_of(name, blocks, count), []).append(((name,), spec))
    return {unit: UnitLayout.of(found) for unit, found in units.items()}
