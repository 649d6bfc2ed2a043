"""Place `peer`: each rank keeps a part of the blocks, and copies the others from its peers."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from entracte.errors import PeerFailed, ResidencyError
from entracte.residency import BASE, Adapter, DeviceManager, Residency, Row, WeightPhase, WeightSet
from entracte.residency.backends.host import HostBackend
from entracte.residency.spec import distinct

from .ranks import ThreadPeers, as_ranks
from .toy import ADAPTERS, ONE, PHASES, TWO, expected, make_spec, perform

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

PEER = {"net": "peer"}
MODES = (
    Residency("resident", places=PEER),
    Residency("fused", places=PEER),
    Residency("fused", merged_blocks=2, places=PEER),
    Residency("dynamic", places=PEER),
)
SPEC, RIGHT = make_spec(), expected()
SNAPSHOT = Residency("snapshot", resident_blocks=2)
STRONGER = (WeightPhase(BASE, 2), WeightPhase(WeightSet((Adapter("one", 0.5),)), 2))
BOTH_ADAPTED = (WeightPhase(ONE, 2), WeightPhase(TWO, 2))
RIGHT_BY_PHASES = {each: expected(each) for each in (PHASES, STRONGER, BOTH_ADAPTED)}


def of_group(peers: ThreadPeers, wanted: Residency) -> DeviceManager:
    return DeviceManager([SPEC], HostBackend(peers=peers), wanted, adapters=ADAPTERS)


def together(
    peers: ThreadPeers, manager: DeviceManager, phases: tuple[WeightPhase, ...] = PHASES
) -> list[Tensor]:
    """A request of all ranks."""
    results = perform(manager, phases)
    peers.exchange(None)
    return results


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("wanted", MODES)
def test_ranks_have_the_bits_of_one(wanted: Residency, ranks: int) -> None:
    def work(peers: ThreadPeers) -> list[list[Tensor]]:
        with of_group(peers, wanted) as manager:
            return [together(peers, manager), together(peers, manager)]

    found = as_ranks(ranks, work)
    for results in [each for both in found for each in both]:
        right = found[0][0] if wanted.mode == "dynamic" else RIGHT
        assert all(map(torch.equal, results, right))


def test_rows_say_what_peers_hold_and_what_is_held_for_them() -> None:
    def work(peers: ThreadPeers) -> tuple[list[Row], set[int | None]]:
        with of_group(peers, MODES[0]) as manager:
            with manager.recording() as record:
                together(peers, manager)
            rows = manager.residency()
            peers.exchange(None)
            return rows, {each.peer for each in record.transfers}

    found = as_ranks(2, work)
    for rank, (rows, copied_from) in enumerate(found):
        lent = {(each.content, each.units, each.nbytes) for each in rows if each.for_peers}
        theirs = [each for each in found[1 - rank][0] if each.where == "peer"]
        assert lent == {(each.content, each.units, each.nbytes) for each in theirs}
        assert len(lent) == len(distinct(PHASES))
        assert all(each.where == "device" for each in rows if each.for_peers)
        assert copied_from == {None, 1 - rank}


@pytest.mark.parametrize("wanted", MODES[:2])
def test_each_rank_holds_its_part_and_copies_the_rest(wanted: Residency) -> None:
    whole = DeviceManager([SPEC], HostBackend(), replace(wanted, places={}), adapters=ADAPTERS)
    plan = whole.plan(PHASES)
    block = plan.components["net"].buffers[0].nbytes

    def work(peers: ThreadPeers) -> tuple[int, int]:
        with of_group(peers, wanted) as manager:
            together(peers, manager)
            before = manager.backend.traffic.bytes_from_peers
            together(peers, manager)
            copied = manager.backend.traffic.bytes_from_peers - before
            assert manager.backend.device_bytes <= manager.plan(PHASES).device_bytes
            return manager.plan(PHASES).device_bytes, copied // block

    (first, by_first), (second, by_second) = as_ranks(2, work)
    sets, more_slots = (2, 2) if wanted.mode == "resident" else (1, 1)
    assert first == plan.device_bytes - sets * 3 * block + more_slots * block
    assert second == first - sets * block
    # Every sweep copies what is neither here nor still in a slot.
    sweeps = sum(phase.sweeps for phase in PHASES)
    assert sweeps <= by_first <= sweeps * 3
    assert sweeps * 4 - 3 <= by_second <= sweeps * 4


@pytest.mark.parametrize("wanted", MODES[:3])
def test_weight_sets_change_between_requests(wanted: Residency) -> None:
    """What peers may still copy is not overwritten before they are done."""

    def work(peers: ThreadPeers) -> None:
        with of_group(peers, wanted) as manager:
            for phases in (PHASES, STRONGER, BOTH_ADAPTED, PHASES):
                if phases is BOTH_ADAPTED and wanted.mode != "resident":
                    continue
                results = together(peers, manager, phases)
                assert all(map(torch.equal, results, RIGHT_BY_PHASES[phases]))

    as_ranks(2, work)


def test_places_change_between_requests() -> None:
    def work(peers: ThreadPeers) -> None:
        with of_group(peers, MODES[0]) as manager:
            for wanted in (
                *(
                    MODES[0],
                    Residency("resident"),
                    MODES[1],
                    Residency("snapshot", resident_blocks=2),
                ),
                *(MODES[0], MODES[2]),
            ):
                manager.configure(wanted)
                assert all(map(torch.equal, together(peers, manager), RIGHT))

    as_ranks(2, work)


def test_a_rank_that_fails_frees_the_others() -> None:
    def work(peers: ThreadPeers) -> None:
        with of_group(peers, MODES[0]) as manager:
            together(peers, manager)
            if peers.rank == 1:
                raise ValueError("broken")
            with pytest.raises(PeerFailed, match="broken"):
                while True:
                    perform(manager, STRONGER)
                    perform(manager)

    with pytest.raises(ValueError, match="broken"):
        as_ranks(2, work)


def test_a_device_alone_has_no_peers() -> None:
    manager = DeviceManager([SPEC], HostBackend(), MODES[0], adapters=ADAPTERS)
    with pytest.raises(ResidencyError, match="there is one device"):
        manager.plan(PHASES)
