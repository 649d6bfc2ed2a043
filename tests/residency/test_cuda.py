import struct
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from entracte.errors import DeviceFault, OutOfMemory
from entracte.residency import BASE, Adapter, Residency, WeightPhase, WeightSet
from entracte.residency.backends.cuda import CudaBackend
from entracte.residency.backends.pinned import HostAllocator
from entracte.residency.backends.protocol import Backend, Stream
from entracte.residency.kernels.merge_table import MergeTable, MergeTiling, fits
from entracte.residency.merge import (
    Change,
    Dora,
    Factors,
    Full,
    Hadamard,
    Kronecker,
    WeightMerge,
    merge,
)

from . import toy

GPU = torch.device("cuda", 0)
MIB = 2**20
LONG = 200_000_000  # cycles, a tenth of a second

# Rows, columns, the adapters' ranks and strengths. The second is a gate, the last are not even.
CASES = [
    (512, 384, [(64, 1.0)]),
    (32, 4096, [(32, 1.0)]),
    (1024, 2048, [(384, 0.8)]),
    (256, 512, [(384, 1.0), (16, -0.7)]),
    (256, 256, [(72, 0.5), (8, 1.0), (128, 1.3)]),
    (200, 264, [(24, 1.0)]),
    (8, 8, [(8, 0.3)]),
]


def weight_merge(
    rows: int,
    columns: int,
    adapters: list[tuple[int, float]],
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
) -> WeightMerge:
    generator = torch.Generator().manual_seed(rows + columns)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    weight = random(rows, columns)
    factors = tuple(
        (Factors(random(rank, columns), random(rows, rank) / rank**0.5), strength)
        for rank, strength in adapters
    )
    return WeightMerge(weight, torch.full_like(weight, torch.nan), factors)


# What needs no device.


class Refusing:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def register(self, address: int, nbytes: int) -> str | None:
        self.asked.append(nbytes)
        return "no more memory can be pinned"

    def unregister(self, address: int) -> str | None:
        raise AssertionError("it was never registered")


class Granting:
    def __init__(self) -> None:
        self.pinned: dict[int, int] = {}

    def register(self, address: int, nbytes: int) -> str | None:
        self.pinned[address] = nbytes
        return None

    def unregister(self, address: int) -> str | None:
        del self.pinned[address]
        return None


def test_refused_pinning_is_said_once_and_memory_is_pageable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registrar = Refusing()
    allocator = HostAllocator(registrar)
    for _ in range(2):
        memory = allocator.allocate(5000, pinned=True)
        assert not memory.pinned
        memory.bytes.fill_(7)
        allocator.free(memory)
    assert registrar.asked == [5000, 5000]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "20 times slower" in caplog.text


def test_host_memory_is_of_the_size_asked_for_and_unpinned_when_freed() -> None:
    registrar = Granting()
    allocator = HostAllocator(registrar)
    with torch.inference_mode():
        memory = allocator.allocate(MIB + 3, pinned=True)
    assert memory.pinned
    assert not memory.bytes.is_inference()
    assert memory.bytes.untyped_storage().nbytes() == MIB + 3
    assert memory.bytes.data_ptr() % 4096 == 0
    assert registrar.pinned == {memory.bytes.data_ptr(): MIB + 3}
    other = allocator.allocate(10, pinned=True)
    assert allocator.allocate(0, pinned=True).bytes.nbytes == 0
    allocator.free(memory)
    assert list(registrar.pinned) == [other.bytes.data_ptr()]
    allocator.close()
    assert registrar.pinned == {}


def test_pageable_memory_is_not_registered() -> None:
    registrar = Granting()
    allocator = HostAllocator(registrar)
    memory = allocator.allocate(100, pinned=False)
    assert not memory.pinned
    assert registrar.pinned == {}
    allocator.free(memory)


def test_more_host_memory_than_there_can_be() -> None:
    with pytest.raises(OutOfMemory, match="bytes of memory"):
        HostAllocator(Granting()).allocate(2**60, pinned=False)


def test_merge_table() -> None:
    cpu = torch.device("cpu")
    merges = [weight_merge(*case, cpu) for case in (CASES[3], CASES[1])]
    table = MergeTable.of(merges, MergeTiling(rows=64, columns=128))
    one, two = merges
    numbers = table.numbers.tolist()
    own = [0, 0, 0]
    assert numbers[:10] == [one.weight.data_ptr(), one.out.data_ptr(), 256, 512, 0, 20, 2, *own]
    assert numbers[10:20] == [two.weight.data_ptr(), two.out.data_ptr(), 32, 4096, 16, 28, 1, *own]
    second = one.adapters[1][0]
    assert numbers[24:27] == [second.down.data_ptr(), second.up.data_ptr(), 16]
    assert struct.unpack("<f", struct.pack("<i", numbers[27]))[0] == pytest.approx(-0.7)
    assert len(numbers) == 32
    assert table.tiles.tolist() == [0] * (4 * 4) + [1] * 32
    assert table.tiles.dtype == torch.int32
    assert table.scaled
    assert table.several


def test_scale_and_strength_are_one_number() -> None:
    base = weight_merge(8, 8, [(8, 1.0)], torch.device("cpu"))
    factors = base.adapters[0][0]
    halved = Factors(factors.down, factors.up, 0.5)
    tables = [
        MergeTable.of([WeightMerge(base.weight, base.out, ((each, strength),))], MergeTiling())
        for each, strength in ((halved, 2.0), (halved, 1.0))
    ]
    assert [table.scaled for table in tables] == [False, True]


def test_what_the_kernel_can_do() -> None:
    cpu = torch.device("cpu")
    for case in CASES:
        assert fits(weight_merge(*case, cpu))
    assert not fits(weight_merge(64, 64, [], cpu))
    assert not fits(weight_merge(64, 60, [(8, 1.0)], cpu))
    assert not fits(weight_merge(64, 64, [(4, 1.0)], cpu))
    assert not fits(weight_merge(64, 64, [(8, 1.0)], cpu, torch.float32))
    for each in of_every_kind(cpu):
        assert not fits(each)
    shifted = torch.zeros(64 * 64 + 1, dtype=torch.bfloat16)[1:].view(64, 64)
    base = weight_merge(64, 64, [(8, 1.0)], cpu)
    assert not fits(WeightMerge(shifted, base.out, base.adapters))
    assert not fits(WeightMerge(base.weight.T, base.out, base.adapters))


# What needs a device.


@pytest.fixture
def backend() -> Iterator[CudaBackend]:
    made = CudaBackend(GPU)
    yield made
    made.close()


def fused(backend: CudaBackend, *merges: WeightMerge) -> None:
    """Merge with one launch, and nothing besides."""
    program = backend.prepare_merges(merges, [])
    assert len(program.fused) == 1, "is Triton there?"
    assert program.plain == ()
    backend.merges.wait(backend.compute.record())
    backend.merges.merge(program)
    backend.synchronize()


@pytest.mark.gpu
def test_is_a_backend(backend: CudaBackend) -> None:
    typed: Backend = backend
    stream: Stream = typed.compute
    assert stream is backend.compute
    with backend.computing(), backend.checks.in_step():
        assert torch.cuda.current_stream() == backend.compute.stream


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fused_merge_is_the_plain_one_but_for_the_order_of_sums(
    backend: CudaBackend, case: tuple[int, int, list[tuple[int, float]]]
) -> None:
    each = weight_merge(*case, GPU)
    before = each.weight.clone()
    fused(backend, each)
    assert torch.equal(each.weight, before)
    expected = merge(each.weight, each.adapters)
    same = (each.out == expected).float().mean()
    assert same >= (0.99 if expected.numel() > 1000 else 0.95)
    # A step of 2^-7 for the rounding of each product, of their sum, and of the weight.
    sizes = [merge(torch.zeros_like(before), [one]).abs().float() for one in each.adapters]
    largest = torch.stack([expected.abs().float(), before.abs().float(), *sizes]).amax(0)
    steps = len(each.adapters) + 2
    assert ((each.out.float() - expected.float()).abs() <= largest * steps * 2**-7).all()
    exact = before.double()
    for factors, strength in each.adapters:
        exact += (factors.up * strength).double() @ factors.down.double()
    error = (each.out.double() - exact).norm() / exact.norm()
    assert error <= 1.02 * (expected.double() - exact).norm() / exact.norm()


@pytest.mark.gpu
def test_the_same_bits_in_place_alone_and_together(backend: CudaBackend) -> None:
    merges = [weight_merge(*case, GPU) for case in CASES]
    fused(backend, *merges)
    together = [each.out.clone() for each in merges]
    for each, expected in zip(merges, together, strict=True):
        each.out.fill_(torch.nan)
        torch.cuda.synchronize()
        fused(backend, each)
        assert torch.equal(each.out, expected)
    fused(backend, *(WeightMerge(each.weight, each.weight, each.adapters) for each in merges))
    for each, expected in zip(merges, together, strict=True):
        assert torch.equal(each.weight, expected)


@pytest.mark.gpu
def test_a_program_is_used_again_with_other_weights_and_factors(backend: CudaBackend) -> None:
    each = weight_merge(*CASES[2], GPU)
    program = backend.prepare_merges([each], [])
    for seed in range(2):
        torch.manual_seed(seed)
        for tensor in (each.weight, each.adapters[0][0].down, each.adapters[0][0].up):
            tensor.normal_()
        backend.merges.wait(backend.compute.record())
        backend.merges.merge(program)
        backend.synchronize()
        expected = merge(each.weight, each.adapters)
        assert (each.out == expected).float().mean() >= 0.99


@pytest.mark.gpu
def test_what_the_kernel_cannot_do_is_done_plainly(backend: CudaBackend) -> None:
    merges = [
        weight_merge(64, 60, [(4, 0.5)], GPU),
        weight_merge(64, 64, [(8, 0.5)], GPU, torch.float32),
        weight_merge(64, 64, [], GPU),
        weight_merge(64, 64, [(8, 0.5)], GPU),
    ]
    source, target = (
        torch.arange(64, dtype=torch.uint8, device=GPU),
        torch.zeros_like(merges[0].out),
    )
    copy = (target.view(torch.uint8).view(-1)[:64], source)
    torch.cuda.synchronize()
    program = backend.prepare_merges(merges, [copy])
    assert len(program.plain) == 3
    backend.merges.merge(program)
    backend.synchronize()
    for each in merges[:3]:
        assert torch.equal(each.out, merge(each.weight, each.adapters))
    assert torch.equal(copy[0], source)
    assert backend.traffic.merges == 4
    assert backend.traffic.bytes_within == 64


@pytest.mark.gpu
def test_the_host_never_waits(backend: CudaBackend) -> None:
    """Copies from pinned memory, merges, and their preparation, while the device is busy."""
    host = backend.allocate_host(64 * MIB, pinned=True)
    memory = backend.allocate(64 * MIB)
    each = weight_merge(*CASES[0], GPU)
    fused(backend, each)  # compiles
    torch.cuda.synchronize()
    with torch.cuda.stream(backend.copies.stream):
        torch.cuda._sleep(LONG)
    torch.cuda.set_sync_debug_mode("error")
    try:
        backend.copies.copy(memory, host.bytes, "in")
        backend.merges.wait(backend.copies.record())
        backend.merges.merge(backend.prepare_merges([each], []))
        assert not backend.copies.stream.query()
        assert not backend.merges.stream.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def of_every_kind(device: torch.device) -> list[WeightMerge]:
    """Merges that the kernel leaves to torch: factors of other dtypes, other kinds, and stacks."""
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return (torch.randn(*shape, generator=generator) / 4).to(device, dtype)

    def pair(dtype: torch.dtype) -> Factors:
        return Factors(random(16, 128, dtype=dtype), random(64, 16, dtype=dtype), 0.5)

    low_rank = pair(torch.bfloat16)
    loha = Hadamard(random(64, 4), random(4, 128), random(64, 4), random(4, 128))
    lokr = Kronecker((random(8, 8),), (random(8, 2), random(2, 16)))
    stacks: list[list[Change]] = [
        [pair(torch.float16)],
        [pair(torch.float32)],
        [Full(random(64, 128, dtype=torch.float32))],
        [loha],
        [lokr],
        [Dora(low_rank, random(64))],
        [Dora(loha, random(1, 128))],
        [low_rank, pair(torch.float16), lokr, Dora(lokr, random(64, 1))],
        [loha, low_rank, low_rank],
    ]
    merges = []
    for stack in stacks:
        weight = random(64, 128)
        adapters = tuple((change, 0.7) for change in stack)
        merges.append(WeightMerge(weight, torch.full_like(weight, torch.nan), adapters))
    bias = random(64)
    return [*merges, WeightMerge(bias, torch.empty_like(bias), ((Full(random(64)), 0.5),))]


@pytest.mark.gpu
def test_other_kinds_are_merged_by_torch_in_the_same_stream(backend: CudaBackend) -> None:
    merges = of_every_kind(GPU)
    fits_the_kernel = weight_merge(*CASES[3], GPU)
    fused(backend, fits_the_kernel)
    expected = fits_the_kernel.out.clone()
    program = backend.prepare_merges([*merges, fits_the_kernel], [])
    assert program.plain == tuple(merges)
    backend.merges.wait(backend.compute.record())
    backend.merges.merge(program)
    backend.synchronize()
    assert torch.equal(fits_the_kernel.out, expected)
    for each, on_cpu in zip(merges, of_every_kind(torch.device("cpu")), strict=True):
        assert torch.equal(each.out, merge(each.weight, each.adapters))
        right = merge(on_cpu.weight, on_cpu.adapters).float()
        assert (each.out.cpu().float() - right).norm() < 5e-3 * right.norm()


@pytest.mark.gpu
def test_the_host_never_waits_for_other_kinds_either(backend: CudaBackend) -> None:
    merges = of_every_kind(GPU)
    backend.merges.merge(backend.prepare_merges(merges, []))  # initialises cuBLAS
    torch.cuda.synchronize()
    with torch.cuda.stream(backend.merges.stream):
        torch.cuda._sleep(LONG)
    torch.cuda.set_sync_debug_mode("error")
    try:
        backend.merges.merge(backend.prepare_merges(merges, []))
        assert not backend.merges.stream.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_further_factors_are_added_with_one_rounding(backend: CudaBackend) -> None:
    """Where a single sum has one term, the order of summing is no excuse."""
    rank, generator = 8, torch.Generator().manual_seed(3)

    def one_term() -> Factors:
        down = torch.zeros(rank, 64)
        down[0] = torch.randn(64, generator=generator)
        up = torch.randn(64, rank, generator=generator)
        return Factors(down.bfloat16().to(GPU), up.bfloat16().to(GPU))

    weight = torch.randn(64, 64, generator=generator).bfloat16().to(GPU)
    adapters = tuple((one_term(), strength) for strength in (1.0, 0.7, -0.3, 1.5))
    each = WeightMerge(weight, torch.empty_like(weight), adapters)
    fused(backend, each)
    delta = (adapters[0][0].up @ adapters[0][0].down).double()
    for factors, strength in adapters[1:]:
        strength = struct.unpack("<f", struct.pack("<f", strength))[0]
        product = strength * (factors.up.double() @ factors.down.double())
        delta = (delta + product).bfloat16().double()
    expected = (weight.double() + delta).bfloat16()
    assert (each.out == expected).float().mean() > 0.999


@pytest.mark.gpu
@torch.inference_mode()
def test_every_kind_in_every_mode_on_the_device() -> None:
    """All modes give one another's bits, and the CPU's but for the order of sums."""
    weights = WeightSet((Adapter("all", 0.8), Adapter("more", -0.5)))
    phases = (WeightPhase(BASE), WeightPhase(weights, 2))
    results = []
    for wanted in (
        Residency("resident"),
        Residency("original", resident_blocks=2),
        Residency("snapshot"),
        Residency("snapshot", "aggressive"),
        Residency("fused", resident_blocks=3, merged_blocks=2),
        Residency("fused", places={"net": "disk"}),
    ):
        x = torch.linspace(-1, 1, 16, device=GPU).view(2, 8).bfloat16()
        with toy.make_manager(CudaBackend(GPU), wanted, adapters=toy.KINDS) as manager:
            for _ in range(2):
                results.append(toy.perform(manager, phases, x))
    for found in results[1:]:
        assert all(map(torch.equal, found, results[0]))
    for found, right in zip(results[0], toy.expected(phases, toy.read_kinds), strict=True):
        assert (found.cpu().float() - right.float()).norm() < 0.1 * right.float().norm()


@pytest.mark.gpu
def test_copies_are_right_and_counted(backend: CudaBackend) -> None:
    host = backend.allocate_host(8 * MIB + 5, pinned=True)
    back = backend.allocate_host(8 * MIB + 5, pinned=False)
    assert host.pinned
    assert host.bytes.is_pinned()
    assert host.bytes.untyped_storage().nbytes() == 8 * MIB + 5
    assert not back.bytes.is_pinned()
    host.bytes.random_(0, 256)
    memory, other = backend.allocate(8 * MIB + 5), backend.allocate(8 * MIB + 5)
    assert memory.data_ptr() % 256 == 0
    backend.copies.copy(memory, host.bytes, "in")
    backend.copies.copy(other, memory, "within")
    backend.copies.copy(back.bytes, other, "out")
    backend.copies.record().synchronize()
    assert torch.equal(back.bytes, host.bytes)
    traffic = backend.traffic
    assert {traffic.bytes_in, traffic.bytes_within, traffic.bytes_out} == {8 * MIB + 5}
    backend.free_host(host)
    assert not host.bytes.is_pinned()


@pytest.mark.gpu
def test_memory_freed_behind_a_side_stream_is_not_overwritten(backend: CudaBackend) -> None:
    """The compute stream has waited for the last read, the host has not.

    What takes the memory's place, in the compute stream or in a copy, comes after that read.
    """
    kept = backend.allocate(32 * MIB)
    host = backend.allocate_host(32 * MIB, pinned=True)
    for stream in (backend.compute, backend.copies):
        torch.cuda.empty_cache()  # so that there is no other memory to take next
        memory = backend.allocate(32 * MIB)
        address = memory.data_ptr()
        memory.fill_(1)
        backend.merges.wait(backend.compute.record())
        with torch.cuda.stream(backend.merges.stream):
            torch.cuda._sleep(LONG)
        backend.merges.copy(kept, memory, "within")
        backend.compute.wait(backend.merges.record())
        backend.free(memory)
        assert not backend.merges.stream.query(), "the host waited"
        again = backend.allocate(32 * MIB)
        assert again.data_ptr() == address, "it was to be the same memory"
        if stream is backend.compute:
            again.fill_(2)
        else:
            stream.copy(again, host.bytes, "in")
        backend.synchronize()
        assert (kept == 1).all()
        backend.free(again)


@pytest.mark.gpu
def test_freed_memory_is_given_back_though_views_are_left(backend: CudaBackend) -> None:
    before = torch.cuda.memory_allocated()
    memory = backend.allocate(32 * MIB)
    view = memory[:100]
    backend.free(memory)
    assert torch.cuda.memory_allocated() == before
    assert view.untyped_storage().nbytes() == 0
    with pytest.raises(ValueError, match="did not allocate"):
        backend.free(torch.empty(5, dtype=torch.uint8, device=GPU))


@pytest.mark.gpu
def test_more_memory_than_there_is(backend: CudaBackend) -> None:
    with pytest.raises(OutOfMemory, match="are free"):
        backend.allocate(2**50)


@pytest.mark.gpu
def test_memory_may_be_written_outside_inference_mode(backend: CudaBackend) -> None:
    with torch.inference_mode():
        memory = backend.allocate(16)
    memory.fill_(1)


@pytest.mark.gpu
def test_tasks_run_in_order_beside_the_host(backend: CudaBackend) -> None:
    host = backend.allocate_host(MIB, pinned=True)
    memory = backend.allocate(MIB)

    def read() -> None:
        host.bytes.fill_(3)
        backend.copies.copy(memory, host.bytes, "in")
        backend.copies.record().synchronize()

    def fail() -> None:
        assert torch.cuda.current_device() == GPU.index
        assert (memory == 3).all()
        raise DeviceFault("broken")

    first, second = backend.read_ahead(read), backend.read_ahead(fail)
    first.result()
    with pytest.raises(DeviceFault, match="broken"):
        second.result()


@pytest.mark.gpu
def test_a_refused_registration_leaves_no_error_behind(backend: CudaBackend) -> None:
    memory = backend.allocate_host(MIB, pinned=True)
    registrar = backend._host._registrar
    assert registrar.register(memory.bytes.data_ptr(), MIB) is not None  # it is pinned already
    assert torch.ones(3, device=GPU).sum().item() == 3
