"""Each rule: the program that breaks it is caught, and the one that keeps it runs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from entracte.errors import CheckpointError, DeviceFault, OutOfMemory
from entracte.residency.backends.protocol import Backend, HostMemory, MergeProgram
from entracte.residency.merge import Factors, WeightMerge, merge
from entracte.residency.simulated import (
    HostWaitInStep,
    NotLent,
    SimulatedAccelerator,
    SimulatedRates,
    UnorderedRead,
    UnorderedWrite,
    UseAfterRelease,
)
from entracte.residency.simulated.clock import SimulatedEngine

SIZE = 64


def accelerator(**rates: float) -> SimulatedAccelerator:
    plain = {"bytes_in_per_second": 64.0, "bytes_out_per_second": 32.0}
    plain |= {"bytes_within_per_second": 64.0, "flops_per_second": 1e9}
    plain |= {"pageable_bytes_per_second": 8.0, "disk_bytes_per_second": 64.0}
    return SimulatedAccelerator(rates=SimulatedRates(**(plain | rates)), keep_log=True)


def filled(backend: Backend, value: int, nbytes: int = SIZE, pinned: bool = True) -> HostMemory:
    memory = backend.allocate_host(nbytes, pinned)
    backend.host_writes(memory.bytes)
    memory.bytes.fill_(value)
    return memory


def loaded(backend: Backend, value: int = 1) -> Tensor:
    """Lent device memory, for which compute has waited."""
    memory = backend.allocate(SIZE)
    backend.copies.copy(memory, filled(backend, value).bytes, "in")
    backend.compute.wait(backend.copies.record())
    backend.lend(memory)
    return memory


def use(backend: Backend, memory: Tensor) -> Tensor:
    """A module that reads memory."""
    with backend.computing():
        return memory + 0


def poisoned(memory: Tensor) -> bool:
    return bool(memory.view(torch.uint8).eq(0xFF).all())


# Memory


def test_it_is_a_backend() -> None:
    backend: Backend = SimulatedAccelerator()
    assert (backend.device, backend.unified) == (torch.device("cpu"), False)


def test_memory_is_counted_aligned_and_poisoned() -> None:
    backend = SimulatedAccelerator()
    with torch.inference_mode():
        memory = backend.allocate(1000)
    assert memory.shape == (1000,)
    assert memory.data_ptr() % 64 == 0
    assert not memory.is_inference()
    assert poisoned(memory)
    assert memory[:992].view(torch.bfloat16).isnan().all()
    memory.fill_(0)
    backend.free(memory)
    assert poisoned(memory)
    backend.allocate(10)
    assert (backend.device_bytes, backend.peak_device_bytes) == (10, 1000)


def test_host_memory_is_counted_and_pinned_as_far_as_possible() -> None:
    backend = SimulatedAccelerator(host_limit=300, pinned_limit=100)
    first, second = backend.allocate_host(80, True), backend.allocate_host(80, True)
    assert (first.pinned, second.pinned) == (True, False)
    assert (backend.host_bytes, backend.pinned_bytes) == (160, 80)
    with pytest.raises(
        OutOfMemory, match="host memory: 200 bytes asked for, 160 in use, limit 300"
    ):
        backend.allocate_host(200, True)
    backend.free_host(first)
    assert (backend.host_bytes, backend.peak_host_bytes, backend.pinned_bytes) == (80, 160, 0)


def test_memory_beyond_the_limit_is_refused() -> None:
    backend = SimulatedAccelerator(device_limit=100)
    backend.allocate(60)
    with pytest.raises(
        OutOfMemory, match="device memory: 41 bytes asked for, 60 in use, limit 100"
    ):
        backend.allocate(41)
    backend.allocate(40)


def test_close_gives_everything_back() -> None:
    backend = accelerator()
    loaded(backend)
    backend.close()
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


# Landing


def test_a_copy_lands_when_it_is_waited_for() -> None:
    backend = accelerator()
    source, target, back = filled(backend, 7), loaded(backend), filled(backend, 0)
    backend.copies.copy(target, source.bytes, "in")
    arrived = backend.copies.record()
    backend.copies.copy(back.bytes, target, "out")
    assert poisoned(target)
    backend.compute.wait(arrived)
    assert target.eq(7).all()
    assert poisoned(back.bytes)
    backend.synchronize()
    backend.host_reads(back.bytes)
    assert back.bytes.eq(7).all()


def test_a_copy_on_the_compute_stream_lands_at_once() -> None:
    backend = accelerator()
    source, target = filled(backend, 7), backend.allocate(SIZE)
    backend.compute.copy(target, source.bytes, "in")
    assert target.eq(7).all()


def test_a_stream_may_overwrite_what_it_has_still_to_read() -> None:
    backend = accelerator()
    device, back = loaded(backend, 1), backend.allocate_host(SIZE, True)
    backend.copies.copy(back.bytes, device, "out")
    backend.copies.copy(device, filled(backend, 2).bytes, "in")
    backend.synchronize()
    assert back.bytes.eq(1).all()
    assert device.eq(2).all()


def test_memory_of_the_hosts_own_is_read_at_once() -> None:
    backend = accelerator()
    source, target = torch.full((SIZE,), 7, dtype=torch.uint8), backend.allocate(SIZE)
    backend.copies.copy(target, source, "in")
    source.zero_()
    backend.synchronize()
    assert target.eq(7).all()
    backend.copies.copy(source, target, "out")
    assert source.eq(7).all()


def test_a_copy_onto_itself_changes_nothing() -> None:
    backend = accelerator()
    memory = loaded(backend, 7)
    backend.copies.copy(memory, memory, "within")
    backend.synchronize()
    assert memory.eq(7).all()


def test_copies_go_where_they_say() -> None:
    backend = accelerator()
    device, host = backend.allocate(SIZE), filled(backend, 0)
    with pytest.raises(ValueError, match='"out" needs host memory, not device memory 1 '):
        backend.copies.copy(device, host.bytes, "out")
    with pytest.raises(ValueError, match="one size"):
        backend.copies.copy(device, host.bytes[1:], "in")
    with pytest.raises(ValueError, match="the host cannot touch device memory 1 "):
        backend.host_writes(device)


def adapted(backend: Backend) -> tuple[Tensor, Factors]:
    """A weight [8, 4] and factors of rank 2 in device memory, known to all streams."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=generator).bfloat16() for shape in [(8, 4), (2, 4), (8, 2)]
    ]
    places = []
    for tensor in tensors:
        memory = backend.allocate(tensor.nbytes)
        backend.compute.copy(memory, tensor.view(torch.uint8).flatten(), "in")
        places.append(memory.view(torch.bfloat16).view(tensor.shape))
    backend.synchronize()
    return places[0], Factors(places[1], places[2])


def prepared(backend: Backend) -> tuple[WeightMerge, MergeProgram]:
    weight, factors = adapted(backend)
    out = loaded(backend).view(torch.bfloat16).view(weight.shape)
    backend.synchronize()
    each = WeightMerge(weight, out, ((factors, 0.5),))
    return each, backend.prepare_merges([each], [])


def test_a_merge_lands_when_it_is_waited_for_with_the_right_bits() -> None:
    backend = accelerator()
    each, program = prepared(backend)
    backend.merges.merge(program)
    assert poisoned(each.out)
    backend.compute.wait(backend.merges.record())
    assert torch.equal(each.out, merge(each.weight, each.adapters))
    assert backend.traffic.merges == 1


def test_a_merge_in_place_lands_late_too() -> None:
    backend = accelerator()
    weight, factors = adapted(backend)
    before = weight.clone()
    backend.merges.merge(
        backend.prepare_merges([WeightMerge(weight, weight, ((factors, 0.5),))], [])
    )
    assert torch.equal(weight, before)
    backend.synchronize()
    assert torch.equal(weight, merge(before, [(factors, 0.5)]))


def test_merges_take_device_memory_only() -> None:
    backend = accelerator()
    weight, factors = adapted(backend)
    with pytest.raises(ValueError, match="memory of the device"):
        backend.prepare_merges([WeightMerge(weight, weight.clone(), ((factors, 1.0),))], [])


# Ordering


def test_a_read_waits_for_the_write() -> None:
    backend = accelerator()
    memory = backend.allocate(SIZE)
    backend.lend(memory)
    backend.copies.copy(memory, filled(backend, 1).bytes, "in")
    with pytest.raises(UnorderedRead, match=r"compute reads device memory 1 .* waited for copies"):
        use(backend, memory)
    backend.compute.wait(backend.copies.record())
    assert use(backend, memory).eq(1).all()


def test_an_event_that_was_recorded_too_early_does_not_help() -> None:
    backend = accelerator()
    memory, early = backend.allocate(SIZE), backend.copies.record()
    backend.lend(memory)
    backend.copies.copy(memory, filled(backend, 1).bytes, "in")
    backend.compute.wait(early)
    with pytest.raises(UnorderedRead):
        use(backend, memory)


def test_a_write_waits_for_the_reads() -> None:
    backend = accelerator()
    memory, other = loaded(backend), filled(backend, 2)
    use(backend, memory)
    with pytest.raises(UnorderedWrite, match="still being read by compute"):
        backend.copies.copy(memory, other.bytes, "in")
    backend.copies.wait(backend.compute.record())
    backend.copies.copy(memory, other.bytes, "in")


def test_waits_pass_on_what_they_waited_for() -> None:
    backend = accelerator()
    memory = backend.allocate(SIZE)
    backend.lend(memory)
    backend.copies.copy(memory, filled(backend, 1).bytes, "in")
    backend.merges.wait(backend.copies.record())
    backend.compute.wait(backend.merges.record())
    assert use(backend, memory).eq(1).all()


def test_what_the_host_waited_for_comes_before_what_it_does_next() -> None:
    backend = accelerator()
    memory, source = backend.allocate(SIZE), filled(backend, 1)
    backend.lend(memory)
    backend.copies.copy(memory, source.bytes, "in")
    backend.copies.record().synchronize()
    assert use(backend, memory).eq(1).all()
    backend.read_ahead(lambda: backend.host_writes(source.bytes)).result()


def test_a_merge_waits_for_its_weight_and_for_readers_of_its_output() -> None:
    backend = accelerator()
    each, program = prepared(backend)
    backend.copies.copy(each.weight.view(torch.uint8).flatten(), filled(backend, 0).bytes, "in")
    with pytest.raises(UnorderedRead, match="merges reads"):
        backend.merges.merge(program)
    backend.merges.wait(backend.copies.record())
    backend.merges.merge(program)
    backend.lend(each.out)
    backend.compute.wait(backend.merges.record())
    use(backend, each.out)
    with pytest.raises(UnorderedWrite, match="merges writes"):
        backend.merges.merge(program)


def test_the_host_waits_before_it_touches_memory() -> None:
    backend = accelerator()
    source = filled(backend, 1)
    backend.copies.copy(backend.allocate(SIZE), source.bytes, "in")
    event = backend.copies.record()
    backend.host_reads(source.bytes)
    with pytest.raises(UnorderedWrite, match="host writes"):
        backend.host_writes(source.bytes)
    event.synchronize()
    backend.host_writes(source.bytes)


def test_what_the_reader_read_is_waited_for_with_its_task() -> None:
    backend = accelerator()
    source = backend.allocate_host(SIZE, True)
    task = backend.read_ahead(lambda: backend.host_writes(source.bytes))
    with pytest.raises(UnorderedRead, match="waited for reader"):
        backend.copies.copy(backend.allocate(SIZE), source.bytes, "in")
    task.result()
    backend.copies.copy(backend.allocate(SIZE), source.bytes, "in")
    event = backend.copies.record()
    with pytest.raises(UnorderedWrite, match="reader writes"):
        backend.read_ahead(lambda: backend.host_writes(source.bytes))

    def wait_first() -> None:
        event.synchronize()
        backend.host_writes(source.bytes)

    with backend.in_step():
        backend.read_ahead(wait_first).result()


def test_a_task_fails_with_its_result() -> None:
    backend = accelerator()

    def fail() -> None:
        raise CheckpointError("no file")

    task = backend.read_ahead(fail)
    with pytest.raises(CheckpointError, match="no file"):
        task.result()


# Modules


def test_freed_memory_is_known_for_as_long_as_a_view_of_it_lives() -> None:
    backend = accelerator()
    memory = loaded(backend)
    view = memory.view(torch.float32)
    backend.free(memory)
    del memory
    for _ in range(3):
        backend.allocate(SIZE)
    with pytest.raises(UseAfterRelease, match="device memory 1 "):
        use(backend, view)


def test_the_address_of_freed_memory_may_be_another_tensors() -> None:
    backend = accelerator()
    size = 1 << 26  # so large that it goes back to the system, which gives the address again
    memory = backend.allocate(size)
    backend.free(memory)
    del memory
    use(backend, torch.empty(size + 255, dtype=torch.uint8))


def test_freed_memory_cannot_be_copied_lent_or_freed() -> None:
    backend = accelerator()
    memory = loaded(backend)
    backend.free(memory)
    with pytest.raises(UseAfterRelease):
        backend.copies.copy(memory, filled(backend, 1).bytes, "in")
    with pytest.raises(UseAfterRelease):
        backend.lend(memory)
    with pytest.raises(UseAfterRelease):
        backend.free(memory)


def test_modules_touch_only_what_is_lent() -> None:
    backend = accelerator()
    memory = loaded(backend)
    use(backend, memory)
    backend.take_back(memory)
    with pytest.raises(NotLent, match="device memory 1 "):
        use(backend, memory)
    memory.add(1)  # not a module


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_views_read_nothing_but_copies_made_as_views_do(mode: type) -> None:
    backend = accelerator()
    memory = loaded(backend).view(8, 8)
    backend.take_back(memory)
    with mode(), backend.computing():
        memory.t().view(torch.uint8)[1:].unsqueeze(0).detach()
        memory.reshape(64)
        memory.split(2)
        torch.empty_like(memory)
        for read in (
            lambda: memory.t().reshape(64),
            lambda: memory.t().contiguous(),
            lambda: memory.to(torch.float32),
            lambda: torch.cat([torch.ones(8, 8), memory]),
            lambda: torch.add(torch.ones(8, 8), other=memory),
            lambda: memory[0, 0].item(),
            lambda: memory.zero_(),
        ):
            with pytest.raises(NotLent):
                read()


def test_what_a_module_writes_is_ordered_too() -> None:
    backend = accelerator()
    memory, back = loaded(backend), backend.allocate_host(SIZE, True)
    with backend.computing():
        torch.add(torch.ones(SIZE, dtype=torch.uint8), 1, out=memory)
    with pytest.raises(UnorderedRead, match="waited for compute"):
        backend.copies.copy(back.bytes, memory, "out")


def test_the_watch_can_be_entered_twice_and_sees_no_landing() -> None:
    backend = accelerator()
    memory = loaded(backend)
    with backend.computing(), backend.computing():
        other = backend.allocate(SIZE)
        backend.copies.copy(other, filled(backend, 3).bytes, "in")
        backend.synchronize()
        memory + 0
    backend.take_back(memory)
    with backend.computing(), pytest.raises(NotLent):
        memory + 0
    memory + 0


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_watch_changes_no_bit(mode: type, dtype: torch.dtype) -> None:
    backend = accelerator()
    x, weight, bias = (torch.randn(shape, dtype=dtype) for shape in [(2, 96, 64), (64, 64), (64,)])

    def module() -> Tensor:
        y = F.gelu(F.linear(x, weight, bias), approximate="tanh")
        q = F.rms_norm(y, (64,), bias).view(2, 96, 4, 16).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2) @ weight

    with mode():
        expected = module()
        with backend.computing():
            assert torch.equal(module(), expected)


# Steps


def test_the_host_does_not_wait_in_a_step() -> None:
    backend = accelerator()
    memory, pageable = loaded(backend), filled(backend, 1, pinned=False)
    done = backend.copies.record()
    done.synchronize()
    with backend.in_step():
        done.synchronize()
        use(backend, memory)
        backend.work(1)
        for wait in (
            backend.compute.record().synchronize,
            backend.synchronize,
            lambda: backend.free(memory),
            lambda: backend.copies.copy(memory, pageable.bytes, "in"),
            lambda: backend.copies.copy(memory, torch.zeros(SIZE, dtype=torch.uint8), "in"),
        ):
            with pytest.raises(HostWaitInStep):
                wait()
        backend.free(backend.allocate(SIZE))
    backend.synchronize()
    backend.free(memory)
    backend.work(1)
    with backend.in_step(), pytest.raises(HostWaitInStep):
        backend.compute.record().synchronize()


# Faults


def test_planned_faults_happen_once() -> None:
    backend = accelerator()
    backend.fail("allocate", after=1)
    memory = loaded(backend)
    with pytest.raises(OutOfMemory, match="refused"):
        backend.allocate(1)
    assert backend.device_bytes == SIZE
    backend.fail("allocate_host")
    with pytest.raises(OutOfMemory):
        backend.allocate_host(1, True)
    source = filled(backend, 5)
    backend.copies.wait(backend.compute.record())
    backend.fail("copy")
    with pytest.raises(DeviceFault, match="copy in copies"):
        backend.copies.copy(memory, source.bytes, "in")
    backend.synchronize()
    assert poisoned(memory)
    backend.copies.copy(memory, source.bytes, "in")
    backend.synchronize()
    assert memory.eq(5).all()


def test_a_failed_merge_poisons_its_output() -> None:
    backend = accelerator()
    weight, factors = adapted(backend)
    program = backend.prepare_merges([WeightMerge(weight, weight, ((factors, 1.0),))], [])
    backend.fail("merge")
    with pytest.raises(DeviceFault):
        backend.merges.merge(program)
    assert poisoned(weight)
    assert backend.traffic.merges == 0


# The clock


def test_streams_overlap_and_waits_do_not() -> None:
    backend = accelerator(disk_bytes_per_second=1e9)
    source, memory = filled(backend, 1), backend.allocate(SIZE)
    start = backend.seconds
    backend.copies.copy(memory, source.bytes, "in")  # one second
    backend.work(3)
    assert backend.seconds - start == pytest.approx(3)
    backend.compute.wait(backend.copies.record())
    backend.copies.wait(backend.compute.record())
    backend.copies.copy(memory, source.bytes, "in")
    backend.compute.wait(backend.copies.record())
    backend.work(2)
    assert backend.seconds - start == pytest.approx(6)
    assert backend.compute_seconds == 5
    assert backend.stall_seconds == pytest.approx(1)
    assert [(span.stream, span.what) for span in backend.log[1:]] == [
        ("copies", "copy in"),
        ("compute", "work"),
        ("copies", "copy in"),
        ("compute", "work"),
    ]


def test_copies_in_share_an_engine_and_copies_out_have_another() -> None:
    backend = accelerator()
    first, second, third = (
        loaded(backend),
        backend.allocate(SIZE),
        backend.allocate_host(SIZE, True),
    )
    source = filled(backend, 1)
    backend.synchronize()
    start = backend.seconds
    backend.copies.wait(backend.compute.record())
    backend.copies.copy(first, source.bytes, "in")
    backend.merges.copy(second, source.bytes, "in")
    assert backend.seconds - start == pytest.approx(2)
    backend.compute.wait(backend.copies.record())
    backend.compute.copy(third.bytes, first, "out")  # from 1 to 3
    assert backend.seconds - start == pytest.approx(3)


def test_merges_take_the_processor_from_modules() -> None:
    backend = accelerator()
    each, program = prepared(backend)
    backend.work(1)
    start = backend.seconds
    backend.merges.merge(program)
    nbytes = 2 * each.weight.nbytes + 8 * 2 * 2 + 4 * 2 * 2
    backend.work(1)
    assert backend.seconds - start == pytest.approx(1 + nbytes / 64)
    assert backend.stall_seconds == pytest.approx(nbytes / 64)


def test_a_module_goes_on_after_a_merge_that_came_while_it_ran() -> None:
    backend = accelerator(disk_bytes_per_second=1e9)
    memory, source = backend.allocate(SIZE), filled(backend, 1)
    backend.synchronize()
    backend.copies.copy(memory, source.bytes, "in")  # one second
    backend.copies.copy(memory, memory, "within")  # one second
    backend.work(3)
    assert backend.seconds == pytest.approx(4)
    assert backend.stall_seconds == pytest.approx(1)


def test_pageable_copies_are_slow_and_stop_the_host() -> None:
    backend = accelerator()
    source, memory = filled(backend, 1, pinned=False), backend.allocate(SIZE)
    backend.copies.copy(memory, source.bytes, "in")  # from 1, for 8
    backend.work(1)
    assert backend.seconds == 10


def test_the_reader_reads_beside_the_host() -> None:
    backend = accelerator()
    source = backend.allocate_host(2 * SIZE, True)
    task = backend.read_ahead(lambda: backend.host_writes(source.bytes))
    backend.work(1)
    assert backend.log[-1].start == 0
    task.result()
    backend.work(1)
    assert (backend.log[-1].start, backend.stall_seconds) == (2, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=12))
def test_an_engine_does_one_thing_at_a_time_and_never_idles_beside_work(
    jobs: list[tuple[int, int]],
) -> None:
    engine, busy = SimulatedEngine(), set[int]()
    for ready, seconds in jobs:
        idle = [now for now in range(ready, 200) if now not in busy][: max(seconds, 1)]
        start, end = engine.occupy(ready, seconds)
        assert start == idle[0]
        assert end == (idle[-1] + 1 if seconds else start)
        busy.update(idle[:seconds])


# Everything together


@given(st.lists(st.sampled_from(["copy", "wait", "release", "use"]), max_size=20))
def test_a_race_is_reported_at_the_first_wrong_step_and_else_the_weights_are_right(
    steps: list[str],
) -> None:
    backend = accelerator()
    memory, newest = loaded(backend, 0), 0
    sources = [filled(backend, value) for value in range(len(steps) + 1)]
    arrived, released = True, True
    for step in steps:
        match step:
            case "copy" if released:
                newest += 1
                backend.copies.copy(memory, sources[newest].bytes, "in")
                arrived = False
            case "copy":
                with pytest.raises(UnorderedWrite):
                    backend.copies.copy(memory, sources[newest].bytes, "in")
                return
            case "wait":
                backend.compute.wait(backend.copies.record())
                arrived = True
            case "release":
                backend.copies.wait(backend.compute.record())
                released = True
            case "use" if arrived:
                assert use(backend, memory).eq(newest).all()
                released = False
            case "use":
                with pytest.raises(UnorderedRead):
                    use(backend, memory)
                return
