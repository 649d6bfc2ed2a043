"""Loads in any order, none waited for: each sees what it needs, and spares what is in use."""

import random
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from entracte.residency import BASE, BlockWeights, BufferKey, DeviceManager, Residency
from entracte.residency.backends.host import HostBackend
from entracte.residency.buffer import Buffer
from entracte.residency.managed import ManagedComponent
from entracte.residency.simulated import SimulatedAccelerator, UnjoinedTask

from .toy import BLOCKS, ONE, PHASES, make_manager, perform

FROM_FILES = Residency("fused", resident_blocks=3, places={"net": "disk"})
WAYS = (
    FROM_FILES,
    Residency("fused", resident_blocks=3, merged_blocks=2),
    Residency("snapshot", resident_blocks=3),
    Residency("original", resident_blocks=3),
    # What is not pinned is copied by the reader thread.
    Residency("fused", resident_blocks=3, pinned_memory=0),
    Residency("original", resident_blocks=3, pinned_memory=0),
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def component(manager: DeviceManager) -> ManagedComponent:
    return manager._components["net"]


@cache
def right() -> dict[BlockWeights, Tensor]:
    """Every unit's memory under both weight sets, by a device on which all is done at once."""
    manager = make_manager(HostBackend(), Residency("resident"))
    perform(manager)
    return {
        buffer.content: buffer.memory
        for buffer in component(manager).pool
        if buffer.content is not None and buffer.content.weights is not None
    }


def load_anything(manager: DeviceManager, seed: int, loads: int = 60) -> None:
    """Load buffers at random in the midst of a request, and compare all of them at its end."""
    chance, it = random.Random(seed), component(manager)
    with manager.request(PHASES):
        device = [
            b for b in it.pool if b.key.role in ("weights", "slot") and b.key.tier == "device"
        ]
        host = [b for b in it.pool if b.key.role == "weights" and b.key.tier == "host"]
        slots = [b for b in device if b.key.role == "slot"]
        for _ in range(loads):
            target = chance.choice(device + host)
            unit = chance.randrange(BLOCKS) if target in slots else target.key.index
            content = BlockWeights(unit, chance.choice((BASE, ONE)))
            if target in host:
                content = BlockWeights(unit, target.key.of)
                it._loader.load_host(target, content, chance.choice(slots))
            else:
                it._loader.load(target, content)
            if chance.random() < 0.2:
                target.acquire(manager.backend.compute)
                target.release(manager.backend.compute)
        for buffer in device + host:
            buffer.acquire(manager.backend.compute)
        manager.backend.synchronize()
        for buffer in device + host:
            if buffer.content is not None:
                views = it._reader.layouts[buffer.content.unit].first_views
                found, expected = views(buffer.memory), views(right()[buffer.content])
                assert all(map(torch.equal, found, expected)), buffer.key


@pytest.mark.sampled(6)
@pytest.mark.parametrize("wanted", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_loads_in_any_order_do_not_race(wanted: Residency, seed: int) -> None:
    manager = make_manager(SimulatedAccelerator(), wanted)
    load_anything(manager, seed)
    manager.release()


@pytest.mark.parametrize("wanted", [FROM_FILES, WAYS[-1]])
def test_a_task_that_nobody_waits_for(wanted: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buffer, "join", lambda buffer: None)
    with pytest.raises((UnjoinedTask, RuntimeError)):
        load_anything(make_manager(SimulatedAccelerator(), wanted), 0)


def test_memory_given_back_while_a_task_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager(SimulatedAccelerator(), FROM_FILES)
    perform(manager)
    it = component(manager)
    slot = it.pool[BufferKey("device", "slot", 0)]
    it._loader.load(slot, BlockWeights(0 if slot.content != BlockWeights(0, BASE) else 1, BASE))
    monkeypatch.setattr(Buffer, "abandon", lambda buffer: None)
    with pytest.raises(UnjoinedTask):
        manager.release()


def leave_at_once() -> None:
    """Nothing waits for what a request began to read."""
    manager = make_manager(SimulatedAccelerator(), WAYS[1])
    with manager.request(PHASES):
        pass
    perform(manager)


def move_what_is_being_read() -> None:
    """The next request's weights are still being read, and are kept on the host from now on."""
    manager = make_manager(SimulatedAccelerator(), Residency("snapshot", places={"net": "disk"}))
    perform(manager)
    for wanted in (Residency("original"), FROM_FILES, WAYS[1]):
        manager.configure(wanted)
        perform(manager)


def test_reading_goes_on_when_a_request_is_left_at_once() -> None:
    leave_at_once()


def test_what_is_being_read_can_be_moved() -> None:
    move_what_is_being_read()
