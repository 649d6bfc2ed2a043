"""Several simulated devices: races between them, their links, budgets, and our code broken on
purpose.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.errors import OutOfMemory, PeerFailed
from entracte.residency import BASE, Adapter, DeviceManager, Residency, WeightPhase, WeightSet
from entracte.residency.buffer import Buffer
from entracte.residency.buffer_key import BlockWeights
from entracte.residency.loading import WeightLoader
from entracte.residency.peer_copies import PeerCopies
from entracte.residency.pending_read import PendingRead
from entracte.residency.recorder import Work
from entracte.residency.sharing import AwaitedFill, PeerOffer
from entracte.residency.simulated import (
    NotLent,
    RaceError,
    SimulatedAccelerator,
    SimulatedGroup,
    SimulatedRates,
    UnorderedRead,
    UnorderedWrite,
    UseAfterRelease,
)
from entracte.residency.simulated.group import SimulatedBoard

from .toy import ADAPTERS, ONE, PHASES, TWO, expected, make_spec, perform

Fill = Callable[[], None]
SPEC = make_spec()
PEER = {"net": "peer"}
BLOCK = 2_048  # bytes, with alignment
PEERS = (
    Residency("resident", places=PEER),
    Residency("fused", places=PEER),
    Residency("fused", merged_blocks=2, places=PEER),
    Residency("dynamic", places=PEER),
)
RESIDENT, FUSED = PEERS[:2]
STREAMED = (
    Residency("snapshot", resident_blocks=2),
    Residency("snapshot", "aggressive"),
    Residency("original", resident_blocks=3),
    Residency("fused", resident_blocks=2, merged_blocks=1),
)
WEAKER = (WeightPhase(BASE, 1), WeightPhase(WeightSet((Adapter("one", 0.5),)), 2))
BOTH_ADAPTED = (WeightPhase(ONE, 1), WeightPhase(TWO, 1))
RIGHT = {phases: expected(phases) for phases in (PHASES, WEAKER, BOTH_ADAPTED)}


def requests(
    backend: SimulatedAccelerator,
    wanted: tuple[Residency, ...],
    phases: tuple[tuple[WeightPhase, ...], ...] = (PHASES, WEAKER, BOTH_ADAPTED, PHASES),
) -> list[Tensor]:
    """Requests of all ranks, held in one way after the other."""
    manager = DeviceManager([SPEC], backend, wanted[0], adapters=ADAPTERS)
    results: list[Tensor] = []
    for each in wanted:
        manager.configure(each)
        for sets in phases:
            results += perform(manager, sets)
            backend.peers.exchange(None)
    manager.release()
    return results


def right(
    wanted: tuple[Residency, ...], phases: tuple[tuple[WeightPhase, ...], ...]
) -> list[Tensor]:
    return [each for _ in wanted for sets in phases for each in RIGHT[sets]]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("wanted", [*PEERS, *STREAMED])
def test_correct_code_breaks_no_rule(wanted: Residency, ranks: int) -> None:
    sets = (PHASES, WEAKER, PHASES)
    if wanted.mode in ("resident", "snapshot"):
        sets = (PHASES, WEAKER, BOTH_ADAPTED, PHASES)
    group = SimulatedGroup(ranks)
    first, *others = group.run(lambda backend: requests(backend, (wanted,), sets))
    for results in (first, *others):
        expects = first if wanted.mode == "dynamic" else right((wanted,), sets)
        assert all(map(torch.equal, results, expects))
    assert {each.device_bytes for each in group.backends} == {0}
    assert group.backends[0].host_bytes == 0


ways = st.sampled_from([*PEERS[:3], *STREAMED, Residency("resident")])


@pytest.mark.slow
@settings(max_examples=15)
@given(
    wanted=st.lists(ways, min_size=1, max_size=3), seed=st.integers(0, 99), ranks=st.integers(2, 4)
)
def test_no_order_of_events_breaks_a_rule(wanted: list[Residency], seed: int, ranks: int) -> None:
    sets = (PHASES, WEAKER)
    found = SimulatedGroup(ranks, seed=seed).run(
        lambda backend: requests(backend, tuple(wanted), sets)
    )
    for results in found:
        assert all(map(torch.equal, results, right(tuple(wanted), sets)))


# Our own code broken on purpose


def first_race(wanted: Residency) -> RaceError:
    """What the first order of events that shows a fault says of it."""
    for seed in range(20):
        try:
            SimulatedGroup(2, seed=seed).run(lambda backend: requests(backend, (wanted,)))
        except RaceError as race:
            return race
    raise AssertionError("no order of events shows the fault")


def test_weights_offered_before_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    publish = PeerOffer.publish
    monkeypatch.setattr(PeerOffer, "publish", lambda offer, _: publish(offer, lambda: None))
    assert isinstance(first_race(RESIDENT), UnorderedRead)


def test_weights_copied_before_they_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_waiting(board: SimulatedBoard, name: str) -> bytes:
        board._turns.until(board._rank, lambda: name in board._entries)
        return board._entries[name].handle

    monkeypatch.setattr(SimulatedBoard, "await_ready", without_waiting)
    assert isinstance(first_race(RESIDENT), UnorderedRead)


@pytest.mark.parametrize("wanted", [RESIDENT, FUSED])
def test_weights_overwritten_or_freed_while_a_peer_copies(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Buffer, "withdraw", lambda buffer, wait=True: None)
    assert isinstance(first_race(wanted), UnorderedWrite)


@pytest.mark.parametrize("wanted", [RESIDENT, FUSED])
def test_a_peer_that_leaves_before_its_copies_are_done(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Buffer.wait_on_host

    def at_once(buffer: Buffer) -> None:
        if buffer.key.tier != "peer":
            wait(buffer)

    monkeypatch.setattr(Buffer, "wait_on_host", at_once)
    assert isinstance(first_race(wanted), UnorderedWrite)


def test_memory_freed_while_a_peer_has_it_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner waits for it, and those who never let go are found out."""

    def configure(backend: SimulatedAccelerator) -> None:
        manager = DeviceManager([SPEC], backend, RESIDENT, adapters=ADAPTERS)
        for wanted in (RESIDENT, Residency("resident")):
            manager.configure(wanted)
            perform(manager)
            backend.peers.exchange(None)

    SimulatedGroup(2).run(configure)
    monkeypatch.setattr(PeerCopies, "unmap", PeerCopies.leave)
    with pytest.raises(PeerFailed, match="all ranks wait"):
        SimulatedGroup(2).run(configure)


def test_a_host_copy_used_before_another_rank_has_filled_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AwaitedFill, "wait", lambda fill: None)
    assert isinstance(first_race(STREAMED[0]), UnorderedRead)


def test_a_host_copy_told_to_be_filled_while_it_is_copied_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave = WeightLoader._leave_to_reader

    def tell_at_once(
        loader: WeightLoader, target: Buffer, content: BlockWeights, work: Work, fill: Fill
    ) -> PendingRead:
        shared = target.shared
        if work == "copy" and shared is not None:
            return leave(loader, target, content, work, shared.set_ready)
        return leave(loader, target, content, work, fill)

    monkeypatch.setattr(WeightLoader, "_leave_to_reader", tell_at_once)
    assert isinstance(first_race(STREAMED[0]), UnorderedRead)


# The machine itself


def test_ranks_exchange_and_meet() -> None:
    def work(backend: SimulatedAccelerator) -> list[list[object]]:
        return [backend.peers.exchange((backend.peers.rank, n)) for n in range(3)]

    for told in SimulatedGroup(3, seed=4).run(work):
        assert told == [[(rank, n) for rank in range(3)] for n in range(3)]


def test_ranks_that_wait_for_each_other_fail() -> None:
    def work(backend: SimulatedAccelerator) -> None:
        assert backend.board is not None
        backend.board.await_ready(f"of {1 - backend.peers.rank}")

    with pytest.raises(PeerFailed, match="all ranks wait"):
        SimulatedGroup(2).run(work)


def test_a_rank_that_fails_ends_all() -> None:
    def work(backend: SimulatedAccelerator) -> None:
        if backend.peers.rank:
            raise ValueError("broken")
        with pytest.raises(PeerFailed, match="rank 1: broken"):
            backend.peers.exchange(None)
        with pytest.raises(PeerFailed, match="rank 1: broken"):
            backend.peers.check()

    with pytest.raises(ValueError, match="broken"):
        SimulatedGroup(2).run(work)


def offered(backend: SimulatedAccelerator, nbytes: int = 64) -> Tensor:
    """Device memory of rank 0 that all may copy."""
    assert backend.board is not None
    if backend.peers.rank:
        return backend.open_peer(backend.board.await_ready("memory"))
    memory = backend.allocate_for_peers(nbytes)
    host = backend.allocate_host(nbytes, True)
    backend.host_writes(host.bytes)
    host.bytes.fill_(7)
    backend.copies.copy(memory, host.bytes, "in")
    backend.copies.record().synchronize()
    backend.board.join("memory", lambda: backend.export(memory))
    backend.board.set_ready("memory")
    return memory


def test_memory_of_another_device_is_for_copies_from_it() -> None:
    def work(backend: SimulatedAccelerator) -> None:
        memory = offered(backend)
        backend.peers.exchange(None)
        mine = backend.allocate(64)
        if backend.peers.rank:
            with backend.computing(), pytest.raises(NotLent):
                memory + 0
            backend.copies.copy(mine, memory, "peer")
            backend.synchronize()
            assert mine.eq(7).all()
            assert backend.traffic.bytes_from_peers == 64
        else:
            with pytest.raises(ValueError, match="memory of another device"):
                backend.copies.copy(mine, memory, "peer")
        backend.peers.exchange(None)
        if not backend.peers.rank:
            backend.compute.wait(backend.copies.record())
            backend.free(memory)
        backend.peers.exchange(None)
        if backend.peers.rank:
            with pytest.raises(UseAfterRelease):
                backend.copies.copy(mine, memory, "peer")

    SimulatedGroup(2).run(work)


def test_a_devices_link_serves_one_copy_at_a_time() -> None:
    def work(backend: SimulatedAccelerator) -> float:
        memory = offered(backend)
        backend.peers.exchange(None)
        begin = backend.now()
        if backend.peers.rank:
            backend.copies.copy(backend.allocate(64), memory, "peer")
        backend.synchronize()
        return backend.now() - begin

    rates = SimulatedRates(bytes_from_peer_per_second=32.0)
    took = SimulatedGroup(3, rates=rates).run(work)
    assert sorted(took) == pytest.approx([0, 2, 4])


def test_host_memory_is_counted_once_for_all() -> None:
    def work(backend: SimulatedAccelerator) -> None:
        shared = backend.allocate_host(100, True, "shared")
        own = backend.allocate_host(10, True)
        backend.peers.exchange(None)
        assert (backend.host_bytes, backend.pinned_bytes) == (120, 120)
        with pytest.raises(OutOfMemory, match="120 in use, limit 125"):
            backend.allocate_host(6, True)
        backend.peers.exchange(None)
        backend.free_host(own)
        backend.free_host(shared)
        backend.peers.exchange(None)
        assert backend.host_bytes == 0

    SimulatedGroup(2, host_limit=125).run(work)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", [*PEERS, *STREAMED])
def test_the_plan_is_what_it_takes(wanted: Residency) -> None:
    """Of each device, and of the host once for all ranks.

    A rank that merges only its part of a snapshot may take a block less than is planned.
    """
    less = BLOCK if wanted.snapshot_policy == "aggressive" else 0

    def work(backend: SimulatedAccelerator) -> None:
        manager = DeviceManager([SPEC], backend, wanted, adapters=ADAPTERS)
        plan = manager.plan(PHASES)
        for _ in range(2):
            perform(manager)
            backend.peers.exchange(None)
        assert plan.device_bytes - less <= backend.peak_device_bytes <= plan.device_bytes
        assert backend.host_bytes == plan.host_bytes
        net, rows = plan.components["net"], manager.residency()
        assert sum(row.nbytes for row in rows if row.for_peers) == net.bytes_for_peers
        assert sum(row.nbytes for row in rows if row.where == "peer") == net.bytes_at_peers

    SimulatedGroup(2).run(work)
