"""Prepared merges of the simulated accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge

from .job import StreamJob, carry_out, not_among
from .memory import Allocation, MemoryBook
from .rates import SimulatedRates


@dataclass(frozen=True, slots=True)
class SimulatedMergeProgram:
    """Merges, copies (target, source), expansions and quantisations in one job."""

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
    quantisations: Sequence[Quantisation] = (),
) -> SimulatedMergeProgram:
    """Make one job of it all. Raises ValueError for memory that is not the device's."""
    changes = [change for each in merges for change, _ in each.adapters]
    made = {each.out.data_ptr() for each in expansions}
    # A weight that is expanded just before it is merged into is no input.
    inputs = [each.weight for each in merges if each.weight.data_ptr() not in made]
    made |= {each.out.data_ptr() for each in merges}
    inputs += [each.weight for each in quantisations if each.weight.data_ptr() not in made]
    inputs += [source for _, source in copies]
    inputs += [part for change in changes for part in change.tensors.values()]
    inputs += [part for each in expansions for part in each.stored.values()]
    outputs = [each.out for each in merges] + [target for target, _ in copies]
    outputs += [each.out for each in expansions]
    outputs += [part for each in quantisations for part in each.out.values()]
    seconds = sum(rates.merge_seconds(each) for each in merges)
    seconds += sum(rates.copy_seconds("within", target.nbytes) for target, _ in copies)
    seconds += sum(rates.expand_seconds(each) for each in expansions)
    seconds += sum(rates.quantise_seconds(each) for each in quantisations)
    job = StreamJob(
        operation="merge",
        engine="within",
        seconds=seconds,
        reads=frozenset(_device_memory(memory, each) for each in inputs),
        writes=frozenset(_device_memory(memory, each) for each in outputs),
        written=tuple(outputs),
        in_flight=not_among(outputs, inputs),
        land=carry_out(merges, copies, expansions, quantisations),
    )
    return SimulatedMergeProgram(tuple(merges), tuple(copies), tuple(expansions), job)


def _device_memory(memory: MemoryBook, tensor: Tensor) -> Allocation:
    allocation = memory.find(tensor)
    if allocation is None or allocation.place != "device" or not tensor.is_contiguous():
        raise ValueError("merges need contiguous tensors in the memory of the device")
    return allocation
