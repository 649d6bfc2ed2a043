"""Measures how fast a backend computes, merges and copies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from entracte.models.transformer.linear import Linear
from entracte.residency import Backend, Direction, Factors, HostMemory, WeightMerge
from entracte.units import MIB

from .clock import clock_of, median_seconds
from .refused import PinningRefused

SECONDS = 0.12  # that a rate's samples take together


@dataclass(frozen=True, slots=True)
class ProbeSizes:
    """Sizes of the measurements.

    tokens, inward, outward: of a linear. merged: shapes [out, in] of weights. copied, pageable:
    bytes, more than caches hold.
    """

    tokens: int
    inward: int
    outward: int
    merged: tuple[tuple[int, int], ...]
    rank: int
    copied: int
    pageable: int


# As in a block of the full-size transformer.
DEVICE = ProbeSizes(
    tokens=6144,
    inward=4096,
    outward=16384,
    merged=((4096, 4096),) * 4 + ((16384, 4096), (4096, 16384)),
    rank=384,
    copied=256 * MIB,
    pageable=64 * MIB,
)
HOST = ProbeSizes(
    tokens=1024,
    inward=2048,
    outward=2048,
    merged=((2048, 2048),),
    rank=64,
    copied=256 * MIB,
    pageable=256 * MIB,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """Measures a backend with a dtype and sizes."""

    backend: Backend
    dtype: torch.dtype
    sizes: ProbeSizes

    @classmethod
    def of(cls, backend: Backend, dtype: torch.dtype) -> "Bench":
        return cls(backend, dtype, DEVICE if backend.device.type == "cuda" else HOST)


def matmul(bench: Bench) -> float:
    """Floating-point operations per second of the transformer's own linears."""
    backend, sizes = bench.backend, bench.sizes
    device, dtype = backend.device, bench.dtype
    with backend.computing(), torch.inference_mode():
        linear = Linear(sizes.inward, sizes.outward, device="meta", dtype=dtype)
        linear.to_empty(device=device)
        x = torch.empty(sizes.tokens, sizes.inward, device=device, dtype=dtype)
        for tensor in (*linear.parameters(), x):
            _randomise(tensor)
        seconds = median_seconds(clock_of(backend), backend.compute, lambda: linear(x), SECONDS)
    return 2 * sizes.tokens * sizes.inward * sizes.outward / seconds


def merge(bench: Bench) -> float:
    """Floating-point operations per second of merging an adapter into several weights at once."""
    backend, rank = bench.backend, bench.sizes.rank
    with _merges(bench) as merges:
        program = backend.prepare_merges(merges, [])
        backend.merges.wait(backend.compute.record())
        seconds = median_seconds(
            clock_of(backend), backend.merges, lambda: backend.merges.merge(program), SECONDS
        )
    return sum(2 * rank * out * inward for out, inward in bench.sizes.merged) / seconds


def device_copy(bench: Bench) -> float:
    """Bytes read and written per second within the device's memory."""
    backend, size = bench.backend, bench.sizes.copied
    with _device_memory(backend, size) as target, _device_memory(backend, size) as source:
        return 2 * _copied_per_second(bench, target, source, "within")


def h2d(bench: Bench) -> float:
    """Bytes per second from pinned memory to the device. Raises PinningRefused."""
    size = bench.sizes.copied
    with _device_memory(bench.backend, size) as target, _pinned(bench.backend, size) as source:
        return _copied_per_second(bench, target, source.bytes, "in")


def d2h(bench: Bench) -> float:
    """Bytes per second from the device to pinned memory. Raises PinningRefused."""
    size = bench.sizes.copied
    with _device_memory(bench.backend, size) as source, _pinned(bench.backend, size) as target:
        return _copied_per_second(bench, target.bytes, source, "out")


def pageable(bench: Bench) -> float:
    """Bytes per second from memory that is not pinned to the device."""
    backend, size = bench.backend, bench.sizes.pageable
    with _device_memory(backend, size) as target, _host_memory(backend, size, False) as source:
        return _copied_per_second(bench, target, source.bytes, "in")


MEASURES: Mapping[str, Callable[[Bench], float]] = MappingProxyType(
    {
        "matmul": matmul,
        "merge": merge,
        "device_copy": device_copy,
        "h2d": h2d,
        "d2h": d2h,
        "pageable": pageable,
    }
)


def _copied_per_second(bench: Bench, target: Tensor, source: Tensor, direction: Direction) -> float:
    stream = bench.backend.copies
    stream.wait(bench.backend.compute.record())  # which filled the memory
    seconds = median_seconds(
        clock_of(bench.backend), stream, lambda: stream.copy(target, source, direction), SECONDS
    )
    return target.nbytes / seconds


def _randomise(tensor: Tensor) -> None:
    """Fill with random numbers, which devices multiply slower than zeros. Keeps the global
    generator.
    """
    tensor.normal_(std=0.02, generator=torch.Generator(tensor.device))


@contextmanager
def _merges(bench: Bench) -> Iterator[list[WeightMerge]]:
    """Weights, each with an adapter."""
    rank, backend = bench.sizes.rank, bench.backend
    parts = [
        part
        for out, inward in bench.sizes.merged
        for part in ((out, inward), (out, inward), (rank, inward), (out, rank))
    ]
    width = bench.dtype.itemsize
    with _device_memory(backend, sum(a * b for a, b in parts) * width) as memory:
        tensors, start = [], 0
        for rows, columns in parts:
            end = start + rows * columns * width
            tensors.append(memory[start:end].view(bench.dtype).view(rows, columns))
            start = end
        with backend.computing():
            _randomise(memory.view(bench.dtype))
        yield [
            WeightMerge(weight, merged, ((Factors(down, up), 1.0),))
            for weight, merged, down, up in zip(
                *(tensors[each::4] for each in range(4)), strict=True
            )
        ]


@contextmanager
def _device_memory(backend: Backend, nbytes: int) -> Iterator[Tensor]:
    """Device memory that was written once, freed when all work on it is done."""
    memory = backend.allocate(nbytes)
    try:
        with backend.computing():
            memory.fill_(1)
        yield memory
    finally:
        backend.synchronize()
        backend.free(memory)


@contextmanager
def _host_memory(backend: Backend, nbytes: int, pinned: bool) -> Iterator[HostMemory]:
    memory = backend.allocate_host(nbytes, pinned)
    try:
        memory.bytes.fill_(1)  # pageable memory is only allocated when written
        yield memory
    finally:
        backend.free_host(memory)


@contextmanager
def _pinned(backend: Backend, nbytes: int) -> Iterator[HostMemory]:
    """Pinned host memory, or any if the device's memory is the host's. Raises PinningRefused."""
    with _host_memory(backend, nbytes, True) as memory:
        if not (memory.pinned or backend.unified):
            raise PinningRefused("the system refused to pin host memory")
        yield memory
