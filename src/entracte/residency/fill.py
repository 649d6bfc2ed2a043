"""Bringing weights into an arena: by a copy, a merge, or both; from wherever they are."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .arena import STAGING, Arena, ArenaKey, Content
from .backend import Backend, MergeProgram, Stream
from .component import WeightSource
from .factors import AdapterFactors
from .layout import Layout
from .merge import WeightMerge
from .plan import SLOTS
from .stores import Stores
from .weights import WeightSet

# An arena that holds an adapter's factors for a unit, the adapter, and its strength.
Ready = tuple[Arena, AdapterFactors, float]


class Filler:
    """Fills the arenas of one component. Every method returns before the work is done.

    copies: the stream in which it copies.
    """

    def __init__(
        self,
        backend: Backend,
        stores: Stores,
        layouts: tuple[Layout, ...],
        sources: Mapping[str, WeightSource],
        factors: Callable[[str], AdapterFactors],
        copies: Stream,
    ) -> None:
        self._backend = backend
        self._copies = copies
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
            base = content.base
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
        copies, nbytes = self._copies, self._layouts[content.unit].nbytes
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
            arena = self._stores.get(ArenaKey("device", "factors", unit, adapter.name))
            if arena is None:
                arena = self._stores.ensure(
                    ArenaKey("device", "factor slot", self._turn, adapter.name)
                )
            content = Content(unit, adapter=adapter.name)
            if arena.content != content:
                self.fill_factors(arena, content)
            found.append((arena, factors, adapter.strength))
        return found

    def prepare(self, target: Arena, content: Content) -> None:
        """Prepare the merge that will fill an arena, where its factors stay on the device."""
        if content.weights is None or not content.weights.adapters:
            return
        found: list[Ready] = []
        for adapter in content.weights.adapters:
            arena = self._stores.get(ArenaKey("device", "factors", content.unit, adapter.name))
            factors = self._factors(adapter.name)
            if factors.modules[content.unit]:
                if arena is None:
                    return
                found.append((arena, factors, adapter.strength))
        base = self._stores.get(ArenaKey("device", "weights", content.unit))
        self._program(base or target, target, content, found)

    def _merge(self, source: Arena, target: Arena, content: Content) -> None:
        merges = self._backend.merges
        factors = self.factors(content.unit, _weights(content))
        program = self._program(source, target, content, factors)
        read = [arena for arena, _, _ in factors]
        if source is not target:
            read.append(source)
        for arena in read:
            arena.acquire(merges)
        try:
            with target.writing(merges, content):
                merges.merge(program)
        finally:
            for arena in read:
                arena.release(merges)

    def _program(
        self, source: Arena, target: Arena, content: Content, factors: list[Ready]
    ) -> MergeProgram:
        """The merge of a unit between given arenas, prepared once."""
        if self._generation != self._stores.generation:
            self._programs.clear()
            self._generation = self._stores.generation
        key = (content, source, target, *(arena for arena, _, _ in factors))
        program = self._programs.get(key)
        if program is None:
            merges, copies = self._steps(source, target, content, factors)
            program = self._programs[key] = self._backend.prepare_merges(merges, copies)
        return program

    @torch.inference_mode(False)
    def _steps(
        self,
        source: Arena,
        target: Arena,
        content: Content,
        ready: list[Ready],
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]]]:
        """What to merge, and what to copy because no adapter changes it."""
        factors = [
            (each.views(content.unit, arena.memory), strength) for arena, each, strength in ready
        ]
        layout = self._layouts[content.unit]
        before, after = layout.views(source.memory), layout.views(target.memory)
        merges: list[WeightMerge] = []
        untouched: list[tuple[int, int]] = []
        joined = False
        for entry in layout.entries:
            name, end = entry.names[0], entry.start + entry.nbytes
            module = name.removesuffix(".weight")
            changes = tuple((each[module], by) for each, by in factors if module in each)
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
        copies, nbytes = self._copies, self._nbytes(content)

        def copy() -> None:
            with source.reading(copies), target.writing_in_task(copies, content):
                copies.copy(target.memory[:nbytes], source.memory[:nbytes], "in")

        if source.pinned or self._backend.unified:
            target.join()
            copy()
        else:  # it would stop the host
            source.join()
            target.expect(content, lambda: self._backend.read_ahead(copy))

    def _read_in(self, target: Arena, content: Content) -> None:
        """From the files to the device, by way of the staging arena."""
        if self._backend.unified:
            self._read(target, content)
            return
        nbytes, copies = self._nbytes(content), self._copies
        staging = self._staging(nbytes)

        def task() -> None:
            self._read_now(staging, content)
            with staging.reading(copies), target.writing_in_task(copies, content):
                copies.copy(target.memory[:nbytes], staging.memory[:nbytes], "in")

        target.expect(content, lambda: self._backend.read_ahead(task))

    def _staging(self, nbytes: int) -> Arena:
        staging = self._stores.get(STAGING)
        if staging is not None and staging.memory.nbytes < nbytes:
            self._stores.discard(STAGING)
            staging = None
        if staging is None:
            largest = max(layout.nbytes for layout in self._layouts)
            staging = self._stores.add(STAGING, max(largest, nbytes))
        return staging

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
            self._layouts[content.unit].clear_padding(target.memory)
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
