"""Prepared merges of the simulated accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from entracte.residency.formats import Expansion
from entracte.residency.merge import WeightMerge

from .job import StreamJob, carry_out, not_among
from .memory import Allocation, MemoryBook
from .rates import SimulatedRates


@dataclass(frozen=True, slots=True)
class SimulatedMergeProgram:
    """Merges, copies (target, source) and expansions in one job."""

    merges: tuple[WeightMerge, ...]
    copies: tuple[tuple[Tensor, Tensor], ...]
    expansions: tuple[Expansion, ...]
    job: StreamJob


def prepare(
    memory: MemoryBook,
    rates: SimulatedRates,
    merges: Sequence[WeightMerge],
    copies: Sequence[tuple[Tensor, Tensor]],
    expansions: Sequence[Expansion],
) -> SimulatedMergeProgram:
    """Make one job of it all. Raises ValueError for memory that is not the device's."""
    changes = [change for each in merges for change, _ in each.adapters]
    expanded = {each.out.data_ptr() for each in expansions}
    # A weight that is expanded just before it is merged into is no input.
    inputs = [each.weight for each in merges if each.weight.data_ptr() not in expanded]
    inputs += [source for _, source in copies]
    inputs += [part for change in changes for part in change.tensors.values()]
    inputs += [part for each in expansions for part in each.stored.values()]
    outputs = [each.out for each in merges] + [target for target, _ in copies]
    outputs += [each.out for each in expansions]
    seconds = sum(rates.merge_seconds(each) for each in merges)
    seconds += sum(rates.copy_seconds("within", target.nbytes) for target, _ in copies)
    seconds += sum(rates.expand_seconds(each) for each in expansions)
    job = StreamJob(
        operation="merge",
        engine="within",
        seconds=seconds,
        reads=frozenset(_device_memory(memory, each) for each in inputs),
        writes=frozenset(_device_memory(memory, each) for each in outputs),
        written=tuple(outputs),
        in_flight=not_among(outputs, inputs),
        land=carry_out(merges, copies, expansions),
    )
    return SimulatedMergeProgram(tuple(merges), tuple(copies), tuple(expansions), job)


def _device_memory(memory: MemoryBook, tensor: Tensor) -> Allocation:
    allocation = memory.find(tensor)
    if allocation is None or allocation.place != "device" or not tensor.is_contiguous():
        raise ValueError("merges need contiguous tensors in the memory of the device")
    return allocation
