"""Our own code broken on purpose: the simulated accelerator says what is wrong with it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from entracte.errors import BudgetError, OutOfMemory, ResidencyError
from entracte.residency import BASE, DeviceManager, Place, Residency, WeightPhase
from entracte.residency.backends.protocol import Stream
from entracte.residency.buffer import Buffer
from entracte.residency.buffer_key import BlockWeights
from entracte.residency.loading import WeightLoader
from entracte.residency.phase_run import PhaseRun
from entracte.residency.prefetch import SlotRing
from entracte.residency.simulated import (
    HostWaitInStep,
    NotLent,
    SimulatedAccelerator,
    UnorderedRead,
    UnorderedWrite,
    UseAfterRelease,
)

from .toy import (
    ADAPTERS,
    ONE,
    PHASES,
    Net,
    expected,
    make_manager,
    make_spec,
    perform,
)

X = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
LOW_VRAM = Residency("snapshot")
AGGRESSIVE = Residency("snapshot", "aggressive")
STREAMED = Residency("snapshot", resident_blocks=3)
FUSED = Residency("fused", merged_blocks=3)
FUSED_STREAMED = Residency("fused", resident_blocks=3, merged_blocks=2)
RESIDENT, ORIGINAL = Residency("resident"), Residency("original")
DYNAMIC_STREAMED = Residency("dynamic", resident_blocks=3)
FROM_FILES = Residency("fused", resident_blocks=3, places={"net": "disk"})
ALL = (
    *(RESIDENT, ORIGINAL, LOW_VRAM, AGGRESSIVE, STREAMED),
    *(FUSED, FUSED_STREAMED, DYNAMIC_STREAMED, FROM_FILES),
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


SHORT = (WeightPhase(BASE), WeightPhase(ONE))


def twice(wanted: Residency) -> None:
    """Two requests, so that there is something to be overwritten."""
    manager = make_manager(SimulatedAccelerator(), wanted)
    for _ in range(2):
        perform(manager)


@pytest.mark.parametrize("wanted", ALL)
def test_correct_code_breaks_no_rule(wanted: Residency) -> None:
    twice(wanted)


# Ordering


@pytest.mark.parametrize("wanted", ALL)
def test_a_missing_wait_before_a_read(wanted: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(buffer: Buffer, stream: Stream) -> None:
        buffer.join()

    monkeypatch.setattr(Buffer, "acquire", acquire)
    with pytest.raises(UnorderedRead):
        twice(wanted)


@pytest.mark.parametrize("wanted", ALL[1:])  # a resident one's host waits before it begins
def test_modules_that_do_not_wait_for_copies_and_merges(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = SimulatedAccelerator()
    wait = Buffer.acquire

    def acquire(buffer: Buffer, stream: Stream) -> None:
        if stream is not backend.compute:
            wait(buffer, stream)

    monkeypatch.setattr(Buffer, "acquire", acquire)
    # In mode original the proof reads the weights first, and modules read them after it.
    with pytest.raises(UnorderedRead, match="compute reads"):
        perform(make_manager(backend, wanted))


@pytest.mark.parametrize("wanted", [LOW_VRAM, ORIGINAL, STREAMED, FUSED, FROM_FILES])
def test_a_release_that_is_not_recorded(wanted: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buffer, "release", lambda buffer, stream: None)
    with pytest.raises(UnorderedWrite):
        twice(wanted)


@pytest.mark.parametrize("wanted", [LOW_VRAM, ORIGINAL, STREAMED, FUSED, DYNAMIC_STREAMED])
def test_a_copy_or_merge_into_memory_that_is_still_being_read(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_waiting(buffer: Buffer, stream: Stream) -> None:
        buffer._content = None

    monkeypatch.setattr(Buffer, "begin_writing", without_waiting)
    with pytest.raises(UnorderedWrite, match="still being read"):
        twice(wanted)


def test_a_file_read_into_memory_that_is_still_being_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Buffer, "wait_on_host", lambda buffer: None)
    with pytest.raises(UnorderedWrite, match="reader writes"):
        twice(FROM_FILES)


def test_a_slot_given_back_before_its_block_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = SlotRing.take

    def take_and_fill(ring: SlotRing, content: BlockWeights) -> Buffer:
        slot = take(ring, content)
        ring.give_back()
        ring.advance()  # fills the slot just taken
        return slot

    monkeypatch.setattr(SlotRing, "take", take_and_fill)
    # What is lent holds the block after next by then, and only luck would tell.
    right = expected()
    results = perform(make_manager(SimulatedAccelerator(), STREAMED))
    assert not all(map(torch.equal, results, right))


# Lending


@pytest.mark.parametrize("wanted", [RESIDENT, AGGRESSIVE, FUSED, FROM_FILES])
def test_a_module_kept_across_the_switch(wanted: Residency) -> None:
    manager = make_manager(SimulatedAccelerator(), wanted)
    with manager.request(SHORT) as run:
        with run.phase(0, Net) as net:
            before = net
            net(X)
        with run.phase(1, Net) as net, pytest.raises(NotLent):
            before.first(X)


@pytest.mark.parametrize("wanted", ALL)
def test_a_block_kept_across_the_switch(wanted: Residency) -> None:
    manager = make_manager(SimulatedAccelerator(), wanted)
    with manager.request(SHORT) as run:
        with run.phase(0, Net) as net:
            blocks = list(net.blocks)
        for before in blocks:
            with manager.backend.computing(), pytest.raises(NotLent):
                before(X)
        with run.phase(1, Net) as net:
            for before, now in zip(blocks, net.blocks, strict=True):
                now(X)
                # Unmerged, both are over the same weights.
                if before is not now and wanted.mode != "dynamic":
                    with pytest.raises(NotLent):
                        before(X)


def test_a_block_used_after_its_turn() -> None:
    manager = make_manager(SimulatedAccelerator(), STREAMED)
    with manager.request(PHASES) as run, run.phase(0, Net) as net:
        blocks = iter(net.blocks)
        first = next(blocks)
        first(X)
        next(blocks)
        with pytest.raises(NotLent):
            first(X)


@pytest.mark.parametrize("wanted", ALL)
def test_memory_that_is_never_lent(wanted: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SimulatedAccelerator()
    monkeypatch.setattr(backend, "lend", lambda memory: None)
    with pytest.raises(NotLent):
        perform(make_manager(backend, wanted))


# Release


@pytest.mark.parametrize("place", ["disk", "snapshot"])
def test_a_tensor_kept_after_its_loan(place: Place) -> None:
    specs = [make_spec(), replace(make_spec(), name="other")]
    wanted = Residency(places={"other": place})
    manager = DeviceManager(specs, SimulatedAccelerator(), wanted, adapters=ADAPTERS)
    with manager.borrow("other", Net) as net:
        kept, module = net.first.weight.detach(), net
    with manager.backend.computing(), pytest.raises(UseAfterRelease):
        kept + 0
    assert module.first.weight.numel() == 0
    with pytest.raises(ResidencyError, match="other is used after its loan has ended"):
        iter(module.blocks)


def test_a_tensor_of_the_second_copy_kept_after_the_phases() -> None:
    manager = make_manager(SimulatedAccelerator(), AGGRESSIVE)
    kept: list[Tensor] = []
    with manager.request(PHASES) as run:
        with run.phase(0, Net):
            pass
        with run.phase(1, Net) as net:
            kept.append(net.first.weight.detach())
        with manager.backend.computing(), pytest.raises(UseAfterRelease):
            kept[0] + 0


class Strict(SimulatedAccelerator):
    """Does not wait for work on memory that is given back, as a real device does not."""

    def free(self, memory: Tensor) -> None:
        compute = self._machine.compute
        for access in self._find(memory).history.unseen_by(compute):
            raise UnorderedWrite(f"memory is freed while {access.who.name} uses it")
        super().free(memory)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("wanted", ALL)
def test_memory_is_given_back_after_all_use(wanted: Residency) -> None:
    """What takes its place, in the compute stream, comes after copies and merges too."""
    manager = make_manager(Strict(), wanted)
    for other in (wanted, ORIGINAL, AGGRESSIVE, wanted):
        manager.configure(other)
        perform(manager)
    manager.release()


def test_memory_given_back_before_its_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buffer, "settle", lambda buffer, stream: None)
    with pytest.raises(UnorderedWrite, match="is freed"):
        perform(make_manager(Strict(), RESIDENT))


# Limits


@pytest.mark.sampled(3)
@pytest.mark.parametrize("wanted", ALL)
def test_the_plan_is_what_it_takes(wanted: Residency) -> None:
    """It fits memory of just the planned size; with a byte less it does not."""
    plan = make_manager(SimulatedAccelerator(), wanted).plan(PHASES)
    backend = SimulatedAccelerator(device_limit=plan.device_bytes)
    manager = make_manager(backend, wanted)
    for _ in range(2):
        perform(manager)
    assert backend.peak_device_bytes == plan.device_bytes
    assert backend.host_bytes == plan.host_bytes
    with pytest.raises(OutOfMemory):
        perform(make_manager(SimulatedAccelerator(plan.device_bytes - 1), wanted))


@pytest.mark.parametrize("wanted", ALL)
def test_a_known_budget_is_refused_before_anything_is_allocated(wanted: Residency) -> None:
    plan = make_manager(SimulatedAccelerator(), wanted).plan(PHASES)
    for limits in (
        {"device_memory": plan.device_bytes - 1},
        *([{"host_memory": plan.host_bytes - 1}] if plan.host_bytes else []),
    ):
        backend = SimulatedAccelerator()
        manager = make_manager(backend, replace(wanted, **limits))
        with pytest.raises(BudgetError):
            perform(manager)
        assert (backend.peak_device_bytes, backend.peak_host_bytes) == (0, 0)


# Steps


@pytest.mark.parametrize("wanted", [STREAMED, FUSED, LOW_VRAM, FROM_FILES])
def test_a_host_that_waits_inside_a_step(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = SimulatedAccelerator()
    load = WeightLoader.load

    def load_and_wait(loader: WeightLoader, target: Buffer, content: BlockWeights) -> None:
        load(loader, target, content)
        target.join()
        backend.synchronize()

    monkeypatch.setattr(WeightLoader, "load", load_and_wait)
    with pytest.raises(HostWaitInStep):
        perform(make_manager(backend, wanted))


def test_memory_given_back_inside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PhaseRun, "_replace", lambda run, buffer, unit: run._backend.free(buffer.memory)
    )
    with pytest.raises(HostWaitInStep):
        perform(make_manager(SimulatedAccelerator(), LOW_VRAM))
