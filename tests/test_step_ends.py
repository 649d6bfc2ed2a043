"""The host is told of a step's end while the device does the next one."""

import pytest
import torch

from entracte.pipeline.step_ends import StepEnds
from entracte.residency import open_backend
from entracte.residency.simulated import SimulatedAccelerator
from entracte.trace.trace import Trace


def test_the_device_never_waits_for_the_host_between_steps() -> None:
    accelerator = SimulatedAccelerator()
    trace = Trace(accelerator)
    told: list[tuple[int, float, float]] = []

    def tell(number: int, _: object) -> None:
        told.append((number, accelerator.now(), accelerator.seconds))

    ends = StepEnds(tell)
    with trace.stage("loop"):
        for number in (1, 2, 3):
            accelerator.work(1.0)
            ends.enqueued(number, trace.step(), None)
        ends.wait()
    # At the end of each, and each but the last has the device at work.
    assert told == [(1, 1.0, 2.0), (2, 2.0, 3.0), (3, 3.0, 3.0)]
    assert trace.spans[0].steps == pytest.approx([1.0, 1.0, 1.0])


def test_what_stops_a_run_does_so_a_step_later() -> None:
    accelerator = SimulatedAccelerator()
    trace = Trace(accelerator)

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    ends = StepEnds(stop)
    with pytest.raises(KeyboardInterrupt, match="1"), trace.stage("loop"):
        for number in range(1, 100):
            accelerator.work(1.0)
            ends.enqueued(number, trace.step(), None)
    assert len(trace.spans[0].steps) == 2
    assert trace.seconds == pytest.approx(2.0)


def test_a_cpu_tells_at_once() -> None:
    trace = Trace(open_backend(torch.device("cpu")))
    told: list[int] = []
    ends = StepEnds(lambda number, _: told.append(number))
    with trace.stage("loop"):
        for number in (1, 2, 3):
            ends.enqueued(number, trace.step(), None)
            assert told[-1] == number
        ends.wait()
    assert told == [1, 2, 3]


def test_devices_that_go_together_are_told_at_the_same_place_whichever_is_ahead() -> None:
    trace = Trace(open_backend(torch.device("cpu")))  # whose steps have always passed
    told: list[tuple[int, int]] = []
    ends = StepEnds(lambda number, _: told.append((number, enqueued)), in_step=True)
    enqueued = 0
    with trace.stage("loop"):
        for enqueued in (1, 2, 3):
            ends.enqueued(enqueued, trace.step(), None)
        ends.wait()
    assert told == [(1, 2), (2, 3), (3, 3)]
