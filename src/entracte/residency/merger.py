"""Merging adapters into a unit's weights, from one buffer into another or in place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.backends.protocol import Backend, MergeProgram

from .buffer import Buffer
from .buffer_key import BlockWeights
from .layout import AdapterLayout, Layout
from .merge import WeightMerge


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
    """Merges units of one component, whose layouts these are, and keeps what it prepared for it."""

    def __init__(self, backend: Backend, layouts: tuple[Layout, ...]) -> None:
        self._backend = backend
        self._layouts = layouts
        self._programs: dict[tuple[object, ...], _Prepared] = {}

    def merge(
        self,
        source: Buffer,
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> None:
        """Make the target hold merged weights. The source, or the target itself, has the base."""
        merges = self._backend.merges
        program = self._program(source, target, content, factors)
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
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> None:
        """Prepare a merge, so that `merge` need not."""
        self._program(source, target, content, factors)

    def forget(self) -> None:
        """Drop all that was prepared: another plan needs other merges."""
        self._programs.clear()

    def _program(
        self,
        source: Buffer,
        target: Buffer,
        content: BlockWeights,
        factors: Sequence[LoadedFactors],
    ) -> MergeProgram:
        """The merge of a unit between given buffers, prepared once.

        It is still right when the memory was given back since and has come again.
        """
        buffers = (source, target, *(each.buffer for each in factors))
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
        loaded: Sequence[LoadedFactors],
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]]]:
        """What to merge, and what to copy because no adapter changes it."""
        factors = [
            (each.layout.views(content.unit, each.buffer.memory), each.strength) for each in loaded
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
