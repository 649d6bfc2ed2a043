"""Bringing weights into an arena: by a copy, a merge, or both; from wherever they are."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from torch import Tensor

from .arena import STAGING, Arena, ArenaKey, Content
from .backend import Backend, MergeProgram
from .component import WeightSource
from .factors import AdapterFactors
from .layout import Layout
from .merge import Factors, WeightMerge
from .plan import SLOTS
from .stores import Stores
from .weights import WeightSet

# One adapter's factors for a unit: the arena, the factors in it by module, and their strength.
Ready = tuple[Arena, dict[str, Factors], float]


class Filler:
    """Fills the arenas of one component. Every method returns before the work is done."""

    def __init__(
        self,
        backend: Backend,
        stores: Stores,
        layouts: tuple[Layout, ...],
        sources: Mapping[str, WeightSource],
        factors: Callable[[str], AdapterFactors],
    ) -> None:
        self._backend = backend
        self._stores = stores
        self._layouts = layouts
        self._sources = sources
        self._factors = factors
        self._programs: dict[tuple[object, ...], MergeProgram] = {}
        self._generation = -1
        self._turn = 0

    def fill(self, target: Arena, content: Content) -> None:
        """Make a device arena hold a unit's weights.

        From a host copy of just these weights, if there is one; else merged from the base, which
        is on the device, in the target itself, in host memory or in the files.
        """
        weights = _weights(content)
        copy = self._stores.get(ArenaKey("host", "weights", content.unit, weights))
        if copy is not None and copy.content == content:
            self._copy_in(target, copy, content)
        elif weights.adapters:
            base = Content(content.unit, weights.plain)
            source = self._stores.holding(base)
            if source is None:
                source = target
                if target.content != base:
                    self.fill(target, base)
            self._merge(source, target, content)
        else:
            self._read_in(target, content)

    def fill_host(self, target: Arena, content: Content, by_way_of: Arena) -> None:
        """Make a host arena hold a unit's weights.

        Plain ones are read from the files, unless the device has them. Merged ones are made on the
        device, in `by_way_of`, so that their bits are those of every other merge.
        """
        weights = _weights(content)
        source = self._stores.holding(content)
        if source is None:
            if not weights.adapters:
                self._read(target, content)
                return
            source = by_way_of
            self.fill(source, content)
        copies, nbytes = self._backend.copies, self._layouts[content.unit].nbytes
        with target.writing(copies, content), source.reading(copies):
            copies.copy(target.memory[:nbytes], source.memory[:nbytes], "out")

    def fill_factors(self, target: Arena, content: Content) -> None:
        """Make an arena, on the device or the host, hold an adapter's factors for a unit."""
        copy = self._stores.get(ArenaKey("host", "factors", content.unit, content.adapter or ""))
        if target.key.tier == "host":
            self._read(target, content)
        elif copy is not None and copy.content == content:
            self._copy_in(target, copy, content)
        else:
            self._read_in(target, content)

    def factors(self, unit: int, weights: WeightSet) -> list[Ready]:
        """Arenas that hold the factors of a set's adapters for a unit, filled if need be."""
        found = []
        self._turn = (self._turn + 1) % SLOTS
        for adapter in weights.adapters:
            factors = self._factors(adapter.name)
            if not factors.modules[unit]:
                continue
            content = Content(unit, adapter=adapter.name)
            arena = self._stores.get(ArenaKey("device", "factors", unit, adapter.name))
            if arena is None:
                arena = self._stores.ensure(
                    ArenaKey("device", "factor slot", self._turn, adapter.name)
                )
            if arena.content != content:
                self.fill_factors(arena, content)
            found.append((arena, factors.views(unit, arena.memory), adapter.strength))
        return found

    def prepare(self, target: Arena, content: Content) -> None:
        """Prepare the merge that will fill an arena, where its factors stay on the device."""
        if content.weights is None or not content.weights.adapters:
            return
        found: list[Ready] = []
        for adapter in content.weights.adapters:
            key = ArenaKey("device", "factors", content.unit, adapter.name)
            arena, factors = self._stores.get(key), self._factors(adapter.name)
            if factors.modules[content.unit]:
                if arena is None:
                    return
                found.append((arena, factors.views(content.unit, arena.memory), adapter.strength))
        base = self._stores.get(ArenaKey("device", "weights", content.unit))
        self._program(base or target, target, content, found)

    def _merge(self, source: Arena, target: Arena, content: Content) -> None:
        merges, weights = self._backend.merges, _weights(content)
        factors = self.factors(content.unit, weights)
        program = self._program(source, target, content, factors)
        with ExitStack() as ordered:
            if source is not target:
                ordered.enter_context(source.reading(merges))
            for arena, _, _ in factors:
                ordered.enter_context(arena.reading(merges))
            ordered.enter_context(target.writing(merges, content))
            merges.merge(program)

    def _program(
        self,
        source: Arena,
        target: Arena,
        content: Content,
        factors: list[Ready],
    ) -> MergeProgram:
        """The merge of a unit between given arenas, prepared once."""
        if self._generation != self._stores.generation:
            self._programs.clear()
            self._generation = self._stores.generation
        key = (content, source.key, target.key, *(arena.key for arena, _, _ in factors))
        program = self._programs.get(key)
        if program is None:
            merges, copies = self._steps(source, target, content, factors)
            program = self._programs[key] = self._backend.prepare_merges(merges, copies)
        return program

    def _steps(
        self,
        source: Arena,
        target: Arena,
        content: Content,
        factors: list[Ready],
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]]]:
        """What to merge, and what to copy because no adapter changes it."""
        layout = self._layouts[content.unit]
        before, after = layout.views(source.memory), layout.views(target.memory)
        merges: list[WeightMerge] = []
        untouched: list[tuple[int, int]] = []
        joined = False
        for entry in layout.entries:
            name, end = entry.names[0], entry.start + entry.nbytes
            module = name.removesuffix(".weight")
            changes = tuple((each[module], by) for _, each, by in factors if module in each)
            if changes and module != name:
                merges.append(WeightMerge(before[name], after[name], changes))
                joined = False
            else:
                start = untouched.pop()[0] if joined else entry.start
                untouched.append((start, end))
                joined = True
        if source is target:
            return merges, []
        return merges, [(target.memory[a:b], source.memory[a:b]) for a, b in untouched]

    def _copy_in(self, target: Arena, source: Arena, content: Content) -> None:
        copies, nbytes = self._backend.copies, self._nbytes(content)
        with source.reading(copies), target.writing(copies, content):
            copies.copy(target.memory[:nbytes], source.memory[:nbytes], "in")

    def _read_in(self, target: Arena, content: Content) -> None:
        """From the files to the device, by way of the staging arena."""
        if self._backend.unified:
            self._read(target, content)
            return
        staging = self._stores.get(STAGING)
        if staging is None:
            most = [layout.nbytes for layout in self._layouts]
            staging = self._stores.add(STAGING, max(*most, self._nbytes(content)))
        nbytes, copies = self._nbytes(content), self._backend.copies

        def task() -> None:
            self._read_now(staging, content)
            with staging.reading(copies), target.writing_in_task(copies, content):
                copies.copy(target.memory[:nbytes], staging.memory[:nbytes], "in")

        target.expect(content, lambda: self._backend.read_ahead(task))

    def _read(self, target: Arena, content: Content) -> None:
        """From the files to host memory."""
        target.expect(
            content,
            lambda: self._backend.read_ahead(lambda: self._read_now(target, content)),
        )

    def _read_now(self, target: Arena, content: Content) -> None:
        with target.writing_on_host(content):
            self._backend.host_writes(target.memory[: self._nbytes(content)])
            if content.adapter is not None:
                self._factors(content.adapter).read(content.unit, target.memory)
                return
            source = self._sources[_weights(content).source]
            for name, view in self._first_names(content.unit, target.memory).items():
                source.read(name, view)

    def _first_names(self, unit: int, memory: Tensor) -> dict[str, Tensor]:
        views = self._layouts[unit].views(memory)
        return {entry.names[0]: views[entry.names[0]] for entry in self._layouts[unit].entries}

    def _nbytes(self, content: Content) -> int:
        if content.adapter is not None:
            return self._factors(content.adapter).layouts[content.unit].nbytes
        return self._layouts[content.unit].nbytes


def _weights(content: Content) -> WeightSet:
    if content.weights is None:
        raise ValueError("these are an adapter's factors")
    return content.weights
