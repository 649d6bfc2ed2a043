"""Expanding a unit's weights and merging adapters into them, from one buffer into another or in
place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.backends.protocol import Backend, MergeProgram

from .buffer import Buffer
from .buffer_key import BlockWeights
from .formats import Expansion
from .layout import ALIGNMENT, AdapterLayout
from .merge import WeightMerge
from .unit_reader import UnitReader


@dataclass(frozen=True, slots=True)
class LoadedFactors:
    """A buffer that holds an adapter's factors for a unit, and the strength to merge them at."""

    buffer: Buffer
    layout: AdapterLayout
    strength: float


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
    """Merges units of one component, and keeps what it prepared for it."""

    def __init__(self, backend: Backend, reader: UnitReader) -> None:
        self._backend = backend
        self._reader = reader
        self._programs: dict[tuple[object, ...], _Prepared] = {}

    def merge(
        self,
        source: Buffer,
        base: BlockWeights,
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> None:
        """Make the target hold weights made from the base, which the source, or the target itself,
        holds: as it is stored, or expanded already.
        """
        merges = self._backend.merges
        program = self._program(source, base, target, content, factors)
        read = [each.buffer for each in factors]
        if source is not target:
            read.append(source)
        for buffer in read:
            buffer.acquire(merges)
        target.join()
        try:
            with target.writing(merges, content):
                merges.merge(program)
        finally:
            for buffer in read:
                buffer.release(merges)

    def prepare(
        self,
        source: Buffer,
        base: BlockWeights,
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> None:
        """Prepare a merge, so that `merge` need not."""
        self._program(source, base, target, content, factors)

    def forget(self) -> None:
        """Drop all that was prepared: another plan needs other merges."""
        self._programs.clear()

    def _program(
        self,
        source: Buffer,
        base: BlockWeights,
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> MergeProgram:
        """The merge of a unit between given buffers, prepared once.

        It is still right when the memory was given back since and has come again.
        """
        buffers = (source, target, *(each.buffer for each in factors))
        memory = tuple(buffer.memory for buffer in buffers)
        key = (content, base, *(buffer.key for buffer in buffers))
        prepared = self._programs.get(key)
        if prepared is None or not prepared.serves(memory):
            steps = self._steps(source, base, target, content, factors)
            program = self._backend.prepare_merges(*steps)
            prepared = _Prepared(program, memory, tuple(each.data_ptr() for each in memory))
            self._programs[key] = prepared
        return prepared.program

    @torch.inference_mode(False)
    def _steps(
        self,
        source: Buffer,
        base: BlockWeights,
        target: Buffer,
        content: BlockWeights,
        loaded: Sequence[LoadedFactors],
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]], list[Expansion]]:
        """What to merge, what to copy because nothing changes it, and what to expand before."""
        factors = [
            (each.layout.views(content.unit, each.buffer.memory), each.strength) for each in loaded
        ]
        from_layout, to_layout = self._reader.layout(base), self._reader.layout(content)
        before, after = from_layout.views(source.memory), to_layout.views(target.memory)
        starts = {entry.names[0]: entry.start for entry in from_layout.entries}
        merges: list[WeightMerge] = []
        expansions: list[Expansion] = []
        # Of neighbours that are copied together: where they start in the source, and lie in the
        # target.
        untouched: list[tuple[int, int, int]] = []
        joined = False
        for entry in to_layout.entries:
            name = entry.names[0]
            # With the zeros behind it, so that equal weights are equal memory.
            end = entry.start + -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
            changes = tuple(
                (each[name], by) for each, by in factors for name in entry.names if name in each
            )
            stored = self._reader.specs[name].stored if base.stored else None
            if stored is not None:
                parts = {ending: before[name + ending] for ending in stored.tensors}
                expansions.append(Expansion(stored.format, parts, after[name]))
            if changes:
                weight = before[name] if stored is None else after[name]
                merges.append(WeightMerge(weight, after[name], changes))
            if changes or stored is not None:
                joined = False
                continue
            of, start = untouched.pop()[:2] if joined else (starts[name], entry.start)
            untouched.append((of, start, end))
            joined = True
        if source is target:
            return merges, [], []
        copies = [
            (target.memory[start:end], source.memory[of : of + end - start])
            for of, start, end in untouched
        ]
        return merges, copies, expansions
