"""Work that a stream can do: copies and prepared merges, with what they touch and how they land."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.residency.backends.protocol import Direction
from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge, merge

from .clock import Timing
from .faults import Operation
from .memory import POISON, Allocation


@dataclass(frozen=True, slots=True)
class StreamJob:
    """One piece of work.

    written: the memory that it writes. in_flight: the part of it that can be poisoned until the job
    lands. land: do it. pageable: it stops the host. link: whose engine it takes, if not this
    device's.
    """

    operation: Operation
    engine: Direction
    seconds: float
    reads: frozenset[Allocation]
    writes: frozenset[Allocation]
    written: tuple[Tensor, ...]
    in_flight: tuple[Tensor, ...]
    land: Callable[[], None]
    pageable: bool = False
    link: Timing | None = None

    def touches(self, allocations: frozenset[Allocation]) -> bool:
        return not (self.reads.isdisjoint(allocations) and self.writes.isdisjoint(allocations))


def carry_out(
    merges: Sequence[WeightMerge],
    copies: Sequence[tuple[Tensor, Tensor]],
    expansions: Sequence[Expansion] = (),
    quantisations: Sequence[Quantisation] = (),
) -> Callable[[], None]:
    """How to do copies, expansions, then merges with the plain expression, then quantisations."""

    def land() -> None:
        with torch.no_grad():
            for target, source in copies:
                target.copy_(source)
            for expansion in expansions:
                expansion.carry_out()
            for each in merges:
                merge(each.weight, each.adapters, out=each.out)
            for quantisation in quantisations:
                quantisation.carry_out()

    return land


def poison(memory: Iterable[Tensor]) -> None:
    """Make memory unfit for use."""
    for each in memory:
        each.detach()[None].view(torch.uint8).fill_(POISON)  # a number alone has no bytes


def not_among(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs that share no byte with an input. All must be contiguous."""
    starts: list[int] = []  # of disjoint ranges of addresses
    ends: list[int] = []
    for start, end in sorted(_addresses(each) for each in inputs):
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        else:
            starts.append(start)
            ends.append(end)

    def free(output: Tensor) -> bool:
        start, end = _addresses(output)
        before = bisect_left(starts, end)  # ranges that begin before the output ends
        return before == 0 or ends[before - 1] <= start

    return tuple(each for each in outputs if free(each))


def _addresses(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
