import pytest
import torch

from entracte.errors import OutOfMemory
from entracte.residency.backends.host import HostBackend
from entracte.residency.backends.protocol import Backend
from entracte.residency.merge import Factors, WeightMerge, merge


def test_memory_is_aligned_and_limited() -> None:
    backend: Backend = HostBackend(device_limit=1000, host_limit=500)
    with torch.inference_mode():
        memory = backend.allocate(600)
    assert memory.shape == (600,)
    assert memory.data_ptr() % 64 == 0
    assert not memory.is_inference()
    with pytest.raises(OutOfMemory, match="device memory: 500 bytes asked for, 600 in use"):
        backend.allocate(500)
    with pytest.raises(OutOfMemory, match="host memory: 501 bytes"):
        backend.allocate_host(501, pinned=True)
    backend.free(memory)
    backend.allocate(1000)


def test_work_is_done_at_once() -> None:
    backend: Backend = HostBackend()
    source, target = backend.allocate_host(64, pinned=True), backend.allocate(64)
    source.bytes.fill_(7)
    backend.copies.copy(target, source.bytes, "in")
    backend.compute.wait(backend.copies.record())
    assert target.eq(7).all()
    assert not source.pinned
    assert backend.traffic.bytes_in == 64


def test_merges_are_the_plain_expression() -> None:
    backend: Backend = HostBackend()
    weight, pair = torch.randn(4, 3).bfloat16(), Factors(torch.randn(2, 3), torch.randn(4, 2), 0.5)
    out, other = torch.empty_like(weight), torch.zeros(3)
    program = backend.prepare_merges(
        [WeightMerge(weight, out, ((pair, 0.7),))], [(other, torch.ones(3))]
    )
    backend.merges.merge(program)
    assert torch.equal(out, merge(weight, [(pair, 0.7)]))
    assert torch.equal(other, torch.ones(3))
    assert (backend.traffic.merges, backend.traffic.bytes_within) == (1, 12)


def test_a_task_runs_and_its_failure_comes_with_its_result() -> None:
    backend: Backend = HostBackend()
    ran: list[int] = []
    backend.read_ahead(lambda: ran.append(1)).result()
    assert ran == [1]

    def fail() -> None:
        raise OSError("no file")

    task = backend.read_ahead(fail)
    with pytest.raises(OSError, match="no file"):
        task.result()
