"""A device that waits for the host to launch its work is told from one that computes."""

from collections.abc import Mapping

import pytest

from entracte.residency import Residency
from entracte.residency.simulated import SimulatedAccelerator
from entracte.trace.trace import Trace
from entracte.trace.waits import Parts
from tests.residency.toy import BLOCKS, PHASES, Net, make_manager


def parts(late: Mapping[tuple[int, int], float], wanted: Residency) -> list[Parts]:
    """The parts of two stages, whose blocks take the device a second each.

    late: how far behind the device the host has launched a block of the first, by step and unit.
    """
    accelerator = SimulatedAccelerator()
    manager = make_manager(accelerator, wanted)
    for _ in range(2):  # with all loading, and without
        trace = Trace(accelerator)
        with trace.weights(manager.recording()), manager.request(PHASES) as run:
            for index, phase in enumerate(PHASES):
                with trace.stage(f"stage {index}"), run.phase(index, Net) as net:
                    for step in range(phase.sweeps):
                        for unit, _ in enumerate(net.blocks):
                            accelerator.work(1)
                            if index == 0 and (step, unit) in late:
                                behind = accelerator.seconds - accelerator.now()
                                accelerator.launch(behind + late[step, unit])
                        trace.step()
    found = trace.parts()
    assert sum(part.total for part in found) == pytest.approx(trace.seconds)
    return found[:2]


@pytest.mark.parametrize(
    "wanted", [Residency("resident"), Residency("fused"), Residency("original")]
)
def test_a_device_that_computes_waits_for_no_launch(wanted: Residency) -> None:
    found = parts({}, wanted)
    assert [part.launch for part in found] == [0, 0]
    assert found[1].compute >= 2 * BLOCKS


@pytest.mark.parametrize("wanted", [Residency("resident"), Residency("snapshot")])
def test_what_the_host_is_late_is_no_computing(wanted: Residency) -> None:
    on_time = parts({}, wanted)
    found = parts({(1, 2): 3.0, (1, 3): 4.0, (2, 2): 5.0}, wanted)
    assert found[0].launch == pytest.approx(12)
    assert found[0].compute == pytest.approx(on_time[0].compute)
    assert found[1].launch == 0


def test_a_host_that_is_late_in_every_step_is_seen_as_far_as_steps_differ() -> None:
    found = parts({(0, 2): 3.0, (1, 2): 5.0, (2, 2): 4.0}, Residency("resident"))
    assert found[0].launch == pytest.approx(3)
