"""Expanding a unit's weights, merging adapters into them and quantising them, from one buffer into
another or in place.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.backends.protocol import Backend, MergeProgram

from .buffer import Buffer
from .buffer_key import BlockWeights
from .formats import Expansion, Quantisation
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
        scratch: Buffer | None = None,
    ) -> None:
        """Make the target hold weights made from the base, which the source, or the target itself,
        holds: as it is stored, or expanded already.

        scratch: where weights are made that are quantised then.
        """
        merges = self._backend.merges
        program = self._program(source, base, target, content, factors, scratch)
        read = [each.buffer for each in factors]
        if source is not target:
            read.append(source)
        for buffer in read:
            buffer.acquire(merges)
        target.join()
        try:
            with ExitStack() as writing:
                if scratch is not None:
                    writing.enter_context(scratch.writing(merges, content))
                writing.enter_context(target.writing(merges, content))
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
        scratch: Buffer | None = None,
    ) -> None:
        """Prepare a merge, so that `merge` need not."""
        self._program(source, base, target, content, factors, scratch)

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
        scratch: Buffer | None,
    ) -> MergeProgram:
        """The merge of a unit between given buffers, prepared once.

        It is still right when the memory was given back since and has come again.
        """
        buffers = (source, target, *(each.buffer for each in factors))
        if scratch is not None:
            buffers = (*buffers, scratch)
        memory = tuple(buffer.memory for buffer in buffers)
        key = (content, base, *(buffer.key for buffer in buffers))
        prepared = self._programs.get(key)
        if prepared is None or not prepared.serves(memory):
            steps = self._steps(source, base, target, content, factors, scratch)
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
        scratch: Buffer | None,
    ) -> tuple[list[WeightMerge], list[tuple[Tensor, Tensor]], list[Expansion], list[Quantisation]]:
        """What to merge, what to copy because nothing changes it, what to expand before, and what
        to quantise afterwards.
        """
        factors = [
            (each.layout.views(content.unit, each.buffer.memory), each.strength) for each in loaded
        ]
        reader = self._reader
        from_layout, to_layout = reader.layout(base), reader.layout(content)
        before, after = from_layout.views(source.memory), to_layout.views(target.memory)
        made = {} if scratch is None else reader.scratch[content.unit].views(scratch.memory)
        starts = {entry.names[0]: entry.start for entry in from_layout.entries}
        merges: list[WeightMerge] = []
        expansions: list[Expansion] = []
        quantisations: list[Quantisation] = []
        remade: set[str] = set()  # the names of tensors that are made, not copied
        for entry in to_layout.entries:
            name = entry.names[0]
            spec = reader.specs.get(name)
            if spec is None:
                continue  # it belongs to a parameter, which has it made or leaves it to be copied
            changes = tuple(
                (each[name], by) for each, by in factors for name in entry.names if name in each
            )
            copied = spec.used_as_stored if base.stored else True
            if copied and not changes:
                continue
            ends = {""} if spec.computed is None else spec.computed.format.made
            remade.update(name + end for end in ends)
            weight, out = before[name], after[name]
            if spec.computed is not None:
                out = made[name]
            # What is stored as it is computed with is expanded from there, too.
            if spec.stored is not None and (base.stored or spec.computed is not None):
                parts = {end: before[name + end] for end in spec.stored.tensors}
                expansions.append(Expansion(spec.stored.format, parts, out))
                weight = out
            if changes:
                merges.append(WeightMerge(weight, out, changes))
                weight = out
            if spec.computed is not None:
                parts = {end: after[name + end] for end in ends}
                quantisations.append(Quantisation(spec.computed.format, weight, parts))
        if source is target:
            return merges, [], expansions, quantisations
        # Of neighbours that are copied together: where they start in the source, and lie in the
        # target.
        untouched: list[tuple[int, int, int]] = []
        for entry in to_layout.entries:
            if entry.names[0] in remade:
                continue
            of, start = starts[entry.names[0]], entry.start
            # With the zeros behind it, so that equal weights are equal memory.
            end = start + -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
            if untouched:
                first_of, first, last = untouched[-1]
                if last == start and first_of + start - first == of:
                    untouched.pop()
                    of, start = first_of, first
            untouched.append((of, start, end))
        copies = [
            (target.memory[start:end], source.memory[of : of + end - start])
            for of, start, end in untouched
        ]
        return merges, copies, expansions, quantisations
