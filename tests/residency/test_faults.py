"""Whatever stops a request, the next one is right, or a new manager's is; no memory is lost."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Literal

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.errors import Cancelled, CheckpointError, DeviceFault, OutOfMemory, ResidencyError
from entracte.residency import (
    BASE,
    Adapter,
    DeviceManager,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
)
from entracte.residency.simulated import SimulatedAccelerator

from . import toy
from .toy import (
    ADAPTERS,
    BLOCKS,
    ONE,
    PHASES,
    TWO,
    Net,
    make_manager,
    make_spec,
    perform,
)

Phases = tuple[WeightPhase, ...]

X = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
HALF = WeightSet((Adapter("one", 0.5),))
DISK = {"net": "disk"}
WAYS = (
    Residency("resident"),
    Residency("original"),
    Residency("original", resident_blocks=3),
    Residency("dynamic", resident_blocks=3),
    Residency("snapshot"),
    Residency("snapshot", resident_blocks=2),
    Residency("snapshot", "aggressive", resident_blocks=3),
    Residency("fused", merged_blocks=3),
    Residency("fused", resident_blocks=2, merged_blocks=4),
    Residency("fused", resident_blocks=0, merged_blocks=2, places=DISK),
)
LAST = (WeightPhase(ONE, 2),)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


expected = cache(toy.expected)


class UnreliableFile(TensorSource):
    """Its reads fail as planned, once each: `left` counts those before the next to fail."""

    left = -1

    def read(self, name: str, out: Tensor) -> None:
        self.left -= 1
        if self.left == -1:
            raise CheckpointError("the file cannot be read")
        super().read(name, out)


def on_unreliable_file(
    backend: SimulatedAccelerator, wanted: Residency
) -> tuple[UnreliableFile, DeviceManager]:
    source = UnreliableFile(toy.make_net().state_dict())
    spec = replace(make_spec(), sources={"base": source})
    return source, DeviceManager([spec], backend, wanted, adapters=ADAPTERS)


def right(results: list[Tensor], phases: Phases, wanted: Residency) -> bool:
    if wanted.mode != "dynamic":
        return all(map(torch.equal, results, expected(phases)))
    return all(
        (one.float() - other.float()).norm() <= 0.06 * other.float().norm()
        for one, other in zip(results, expected(phases), strict=True)
    )


def run_until(manager: DeviceManager, phases: Phases, stop: Callable[[], bool]) -> None:
    """A request that is cancelled as soon as `stop` says so, between phases, sweeps or blocks."""

    def check() -> None:
        if stop():
            raise Cancelled

    with manager.request(phases) as run:
        check()
        for index, phase in enumerate(phases):
            with run.phase(index, Net) as net:
                check()
                for _ in range(phase.sweeps):
                    y = net.first(X)
                    for block in net.blocks:
                        check()
                        y = block(y)
                    check()
            check()


def cancel(manager: DeviceManager, phases: Phases, after: int) -> None:
    numbers = count()
    with suppress(Cancelled):
        run_until(manager, phases, lambda: next(numbers) == after)


def end_early(manager: DeviceManager, phases: Phases, sweeps: int) -> None:
    """Fewer sweeps than declared, in every phase."""
    with manager.request(phases) as run:
        for index in range(len(phases)):
            with run.phase(index, Net) as net:
                for _ in range(min(sweeps, phases[index].sweeps)):
                    net(X)


@dataclass(frozen=True)
class Step:
    """What is done before a request that must be right."""

    what: Literal[
        "nothing", "cancel", "early", "allocate", "allocate_host", "copy", "merge", "file"
    ]
    phases: Phases
    after: int
    then: Phases


schedules = st.sampled_from(
    [
        PHASES,
        (WeightPhase(ONE, 2), WeightPhase(TWO, 2)),
        LAST,
        (WeightPhase(HALF, 2),),
        (WeightPhase(BASE, 1), WeightPhase(HALF, 1), WeightPhase(BASE, 1)),
    ]
)
mishaps = st.sampled_from(["nothing", "cancel", "early"])
faults = st.sampled_from(["allocate", "allocate_host", "copy", "merge", "file"])
steps = st.builds(Step, mishaps | faults, schedules, st.integers(0, 45), schedules)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", WAYS)
@settings(max_examples=settings().max_examples // 8)
@example([Step("early", PHASES, 1, PHASES), Step("cancel", LAST, 7, (WeightPhase(HALF, 2),))])
@given(sequence=st.lists(steps, min_size=1, max_size=4))
def test_the_next_request_is_right(wanted: Residency, sequence: list[Step]) -> None:
    backend = SimulatedAccelerator()
    source, manager = on_unreliable_file(backend, wanted)
    faults = 0
    for step in sequence:
        try:
            match step.what:
                case "nothing":
                    pass
                case "cancel":
                    cancel(manager, step.phases, step.after)
                case "early":
                    end_early(manager, step.phases, step.after % 3)
                case "file":
                    source.left, faults = step.after, faults + 1
                case operation:
                    backend.fail(operation, step.after)
                    faults += 1
        except DeviceFault:
            faults -= 1
            manager.release()
            source, manager = on_unreliable_file(backend, wanted)
        except (CheckpointError, OutOfMemory):
            faults -= 1
        # A fault may come at any time from now on, but each comes once.
        for _ in range(faults + 1):
            try:
                results = perform(manager, step.then)
            except DeviceFault:
                faults -= 1
                manager.release()
                source, manager = on_unreliable_file(backend, wanted)
            except (CheckpointError, OutOfMemory):
                faults -= 1
            else:
                assert right(results, step.then, wanted)
                break
        else:
            raise AssertionError("it failed more often than it had reason to")
    manager.release()
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", WAYS)
def test_cancelled_anywhere(wanted: Residency) -> None:
    """The next request has other weights: all that is held is replaced, and so is overwritten."""
    manager = make_manager(SimulatedAccelerator(), wanted)
    one, other = (WeightPhase(ONE, 2),), (WeightPhase(HALF, 2),)
    for after in range(1, 2 * (BLOCKS + 1) + 2):
        cancel(manager, one, after)
        assert right(perform(manager, other), other, wanted)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", WAYS)
def test_fewer_sweeps_than_declared(wanted: Residency) -> None:
    manager = make_manager(SimulatedAccelerator(), wanted)
    for sweeps in (2, 1, 0):
        for phases in (PHASES, (WeightPhase(ONE, 3), WeightPhase(TWO, 2))):
            end_early(manager, phases, sweeps)
            assert right(perform(manager, phases), phases, wanted)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("wanted", WAYS)
def test_more_sweeps_than_declared(wanted: Residency) -> None:
    manager = make_manager(SimulatedAccelerator(), wanted)
    with manager.request(PHASES) as run, run.phase(0, Net) as net:
        for _ in range(3):
            net(X)
        with pytest.raises(ResidencyError, match="more often than the 3 times"):
            net(X)
    assert right(perform(manager), PHASES, wanted)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        *((WAYS[4], "copy"), (WAYS[4], "allocate_host")),
        *((WAYS[8], "merge"), (WAYS[8], "allocate")),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *((WAYS[8], "copy"), (WAYS[8], "allocate_host")),
                *((WAYS[4], "merge"), (WAYS[4], "allocate")),
            )
        ),
    ],
)
def test_every_single_fault_of_the_first_request(
    wanted: Residency, what: Literal["allocate", "allocate_host", "copy", "merge"]
) -> None:
    """One after another, until there is none left to fail."""
    for after in count(step=3 if what == "copy" else 1):
        backend = SimulatedAccelerator()
        manager = make_manager(backend, wanted)
        backend.fail(what, after)
        try:
            assert right(perform(manager), PHASES, wanted)
        except DeviceFault:
            assert what in ("copy", "merge")
            manager.release()
            assert (backend.device_bytes, backend.host_bytes) == (0, 0)
            manager = make_manager(backend, wanted)
            assert right(perform(manager), PHASES, wanted)
        except OutOfMemory:
            assert what in ("allocate", "allocate_host")
            assert right(perform(manager), PHASES, wanted)
        else:
            break
    assert after > 2


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "snapshot"])
def test_every_single_read_of_a_file_may_fail(place: Literal["disk", "snapshot"]) -> None:
    wanted = Residency("fused", resident_blocks=5, places={"net": place})
    for after in count(step=7):
        backend = SimulatedAccelerator()
        source, manager = on_unreliable_file(backend, wanted)
        source.left = after
        failures = 0
        for _ in range(3):
            try:
                assert right(perform(manager), PHASES, wanted)
            except CheckpointError:
                failures += 1
        manager.release()
        assert (backend.device_bytes, backend.host_bytes) == (0, 0)
        if source.left >= 0:
            break
        assert failures <= 1
    assert after > 30


class FailingDisk(TensorSource):
    """Fails with an error that is none of ours."""

    reads = 0

    def read(self, name: str, out: Tensor) -> None:
        self.reads += 1
        if self.reads == self.fails_at:
            raise OSError("input/output error")
        super().read(name, out)

    fails_at = -1


def test_memory_is_given_back_though_a_read_ahead_has_failed() -> None:
    """A read for the next request, which never comes, fails with an error of the system."""
    backend = SimulatedAccelerator()
    source = FailingDisk(toy.make_net().state_dict())
    spec = replace(make_spec(), sources={"base": source})
    wanted = Residency("fused", resident_blocks=0, places=DISK)
    manager = DeviceManager([spec], backend, wanted, adapters=ADAPTERS)
    perform(manager)
    first = source.reads
    perform(manager)
    source.fails_at = 2 * source.reads - first  # the last one of the third request
    perform(manager)
    assert source.reads == source.fails_at
    manager.release()
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


def test_two_loans_of_one_component_at_once_are_refused() -> None:
    manager = make_manager(SimulatedAccelerator(), Residency())
    with manager.request(PHASES):
        with pytest.raises(ResidencyError, match="on loan"), manager.request(PHASES):
            pass
        with pytest.raises(ResidencyError, match="on loan"), manager.borrow("net", Net):
            pass
    assert right(perform(manager), PHASES, manager.wanted)


def test_phases_out_of_order_are_refused() -> None:
    manager = make_manager(SimulatedAccelerator(), Residency("fused"))
    refused = pytest.raises(ResidencyError, match="phase 1 was entered after")
    with manager.request(PHASES) as run, refused, run.phase(1, Net):
        pass
    with manager.request(PHASES) as run, run.phase(0, Net), refused, run.phase(1, Net):
        pass
    assert right(perform(manager), PHASES, manager.wanted)
