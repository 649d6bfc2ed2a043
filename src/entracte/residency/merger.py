"""Merging adapters into a unit's weights, from one buffer into another or in place."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.backends.protocol import Backend, MergeProgram

from .buffer import BlockWeights, Buffer, BufferKey
from .factors import AdapterFactors
from .layout import Layout
from .merge import WeightMerge
from .plan import SLOTS
from .pool import WeightPool
from .weights import WeightSet

# A buffer that holds an adapter's factors for a unit, the adapter, and its strength.
Ready = tuple[Buffer, AdapterFactors, float]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A program, and the memory that it is for: tensors, and where they were."""

    program: MergeProgram
    memory: tuple[Tensor, ...]
    addresses: tuple[int, ...]

    def serves(self, memory: tuple[Tensor, ...]) -> bool:
        return all(
            mine is theirs and theirs.data_ptr() == address
            for mine, theirs, address in zip(self.memory, memory, self.addresses, strict=True)
        )


class Merger:
    """Merges units of one component.

    adapter: an adapter by its name. fill_factors: makes a buffer hold an adapter's factors.
    """

    def __init__(
        self,
        backend: Backend,
        pool: WeightPool,
        layouts: tuple[Layout, ...],
        adapter: Callable[[str], AdapterFactors],
        fill_factors: Callable[[Buffer, BlockWeights], None],
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._layouts = layouts
        self._adapter = adapter
        self._fill_factors = fill_factors
        self._programs: dict[tuple[object, ...], _Prepared] = {}
        self._turn = 0

    def merge(self, source: Buffer, target: Buffer, content: BlockWeights) -> None:
        """Make the target hold merged weights. The source, or the target itself, has the base."""
        merges = self._backend.merges
        factors = self.factors(content.unit, content.of_weights)
        program = self._program(source, target, content, factors)
        read = [buffer for buffer, _, _ in factors]
        if source is not target:
            read.append(source)
        for buffer in read:
            buffer.acquire(merges)
        try:
            with target.writing(merges, content):
                merges.merge(program)
        finally:
            for buffer in read:
                buffer.release(merges)

    def forget(self) -> None:
        """Drop all that was prepared: another plan needs other merges."""
        self._programs.clear()

    def prepare(self, target: Buffer, content: BlockWeights) -> None:
        """Prepare the merge that will fill a buffer, where its factors stay on the device."""
        if content.weights is None or not content.weights.adapters:
            return
        found: list[Ready] = []
        for adapter in content.weights.adapters:
            buffer = self._pool.get(BufferKey("device", "factors", content.unit, adapter.name))
            factors = self._adapter(adapter.name)
            if factors.names[content.unit]:
                if buffer is None:
                    return
                found.append((buffer, factors, adapter.strength))
        base = self._pool.get(BufferKey("device", "weights", content.unit))
        self._program(base or target, target, content, found)

    def factors(self, unit: int, weights: WeightSet) -> list[Ready]:
        """Buffers that hold the factors of a set's adapters for a unit, filled if need be."""
        found = []
        self._turn = (self._turn + 1) % SLOTS
        for adapter in weights.adapters:
            factors = self._adapter(adapter.name)
            if not factors.names[unit]:
                continue
            buffer = self._pool.get(BufferKey("device", "factors", unit, adapter.name))
            if buffer is None:
                buffer = self._pool.ensure(
                    BufferKey("device", "factor slot", self._turn, adapter.name)
                )
            content = BlockWeights(unit, adapter=adapter.name)
            if buffer.content != content:
                self._fill_factors(buffer, content)
            found.append((buffer, factors, adapter.strength))
        return found

    def _program(
        self, source: Buffer, target: Buffer, content: BlockWeights, factors: list[Ready]
    ) -> MergeProgram:
        """The merge of a unit between given buffers, prepared once.

        It is still right when the memory was given back since and has come again.
        """
        buffers = (source, target, *(buffer for buffer, _, _ in factors))
        memory = tuple(buffer.memory for buffer in buffers)
        key = (content, *(buffer.key for buffer in buffers))
        prepared = self._programs.get(key)
        if prepared is None or not prepared.serves(memory):
            merges, copies = self._steps(source, target, content, factors)
            program = self._backend.prepare_merges(merges, copies)
            prepared = _Prepared(program, memory, tuple(each.data_ptr() for each in memory))
            self._programs[key] = prepared
        return prepared.program

    @torch.inference_mode(False)
    def _steps(
        self,
        source: Buffer,
        target: Buffer,
        content: BlockWeights,
        ready: list[Ready],
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]]]:
        """What to merge, and what to copy because no adapter changes it."""
        factors = [
            (each.views(content.unit, buffer.memory), strength) for buffer, each, strength in ready
        ]
        layout = self._layouts[content.unit]
        before, after = layout.views(source.memory), layout.views(target.memory)
        merges: list[WeightMerge] = []
        untouched: list[tuple[int, int]] = []
        joined = False
        for entry in layout.entries:
            end = entry.start + entry.nbytes
            changes = tuple(
                (each[name], by) for each, by in factors for name in entry.names if name in each
            )
            if changes:
                name = entry.names[0]
                merges.append(WeightMerge(before[name], after[name], changes))
                joined = False
            else:
                start = untouched.pop()[0] if joined else entry.start
                untouched.append((start, end))
                joined = True
        if source is target:
            return merges, []
        return merges, [(target.memory[a:b], source.memory[a:b]) for a, b in untouched]
