from typing import Any

import pytest
import torch

from entracte.machine import rates as rates_module
from entracte.machine.clock import CudaEventClock, WallClock, median_seconds
from entracte.machine.rates import MEASURES, Bench, ProbeSizes
from entracte.residency.backends.host import HostBackend

MIB = 2**20
SMALL = ProbeSizes(
    tokens=64, inward=256, outward=256, merged=((256, 128),), rank=8, copied=MIB, pageable=MIB
)


def test_a_sample_is_as_long_as_the_clock_needs() -> None:
    """By the clock of this test, work takes a tenth of a millisecond."""
    done = 0

    class Clock:
        def seconds(self, stream: Any, work: Any) -> float:
            before = done
            work()
            return (done - before) * 1e-4

    def work() -> None:
        nonlocal done
        done += 1

    assert median_seconds(Clock(), HostBackend().compute, work, 0.01) == pytest.approx(1e-4)
    assert done >= 2 + 3 * 50


def test_the_median_ignores_one_slow_sample() -> None:
    times = iter([9.0, 0.1, 0.1, 5.0, 0.1, 0.1])

    class Clock:
        def seconds(self, stream: Any, work: Any) -> float:
            return next(times)

    assert median_seconds(Clock(), HostBackend().compute, lambda: None, 0.01) == 0.1


def test_the_wall_clock_counts_all_work() -> None:
    slept = []
    elapsed = WallClock().seconds(HostBackend().compute, lambda: slept.append(sum(range(10**5))))
    assert slept
    assert 1e-5 < elapsed < 5


def test_the_cuda_clock_wants_a_cuda_stream() -> None:
    with pytest.raises(TypeError, match="not a CUDA stream"):
        CudaEventClock().seconds(HostBackend().compute, lambda: None)


@pytest.mark.gpu
def test_the_cuda_clock() -> None:
    from entracte.residency.backends.cuda import CudaBackend

    backend = CudaBackend(torch.device("cuda", 0))
    with backend.computing():
        elapsed = CudaEventClock().seconds(backend.compute, lambda: torch.cuda._sleep(200_000_000))
    assert 0.03 < elapsed < 1
    backend.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", MEASURES)
def test_rates_count_what_was_done(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that says one second for everything, a rate is the amount of work."""

    def one_second(clock: Any, stream: Any, work: Any, budget: float) -> float:
        work()
        return 1.0

    monkeypatch.setattr(rates_module, "median_seconds", one_second)
    expected = {
        "matmul": 2 * 64 * 256 * 256,
        "merge": 2 * 8 * 256 * 128,
        "device_copy": 2 * MIB,
        "h2d": MIB,
        "d2h": MIB,
        "pageable": MIB,
    }
    backend = HostBackend()
    assert MEASURES[name](Bench(backend, dtype, SMALL)) == expected[name]
    assert backend.device_bytes == backend.host_bytes == 0  # all was given back
    if name == "merge":
        assert backend.traffic.merges == 1
