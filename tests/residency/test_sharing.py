"""Host memory that ranks share: one copy, each byte read once, and nothing is left behind."""

import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest
import torch
from torch import Tensor

from entracte.errors import CheckpointError, PeerFailed
from entracte.residency import DeviceManager, Place, Residency
from entracte.residency.backends.board import open_shared_memory
from entracte.residency.backends.host import HostBackend
from entracte.residency.backends.shared import SharedMemory

from .ranks import Meeting, ThreadPeers, as_ranks
from .toy import ADAPTERS, Net, expected, make_net, make_spec, perform

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

RANKS = 3
X = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
SPEC, NET = make_spec(), make_net()  # made once, for threads have one random state
RIGHT = expected()
STREAMED = (
    Residency("snapshot", resident_blocks=2),
    Residency("snapshot", "aggressive"),
    Residency("original", resident_blocks=3),
    Residency("fused", resident_blocks=2, merged_blocks=1),
    Residency("dynamic", resident_blocks=2),
    Residency("fused", resident_blocks=2, places={"net": "disk"}),
)


def opened(peers: ThreadPeers) -> SharedMemory:
    shared = open_shared_memory(peers)
    assert shared is not None
    return shared


# Memory and its board


def test_ranks_have_the_same_memory_by_name() -> None:
    def work(peers: ThreadPeers) -> list[int]:
        shared = opened(peers)
        memory = shared.named("weights", 5000)
        other = shared.named(f"of {peers.rank}", 10)
        assert not memory.any() or peers.rank
        peers.exchange(None)
        memory[peers.rank] = other[0] = peers.rank + 1
        peers.exchange(None)
        found = [*memory[:RANKS].tolist(), int(other[0])]
        peers.exchange(None)
        shared.close()
        return found

    assert as_ranks(RANKS, work) == [[1, 2, 3, rank + 1] for rank in range(RANKS)]


def test_memory_is_free_once_no_rank_has_it() -> None:
    def work(peers: ThreadPeers) -> list[int]:
        shared = opened(peers)
        memory = shared.named("weights", 1 << 20).fill_(7)
        peers.exchange(None)
        taken = []
        for rank in range(peers.size):
            taken.append(os.fstat(shared._file).st_blocks)
            peers.exchange(None)
            if rank == peers.rank:
                shared.unmap(memory, empty=shared.leave("weights"))
            peers.exchange(None)
        taken.append(os.fstat(shared._file).st_blocks)
        peers.exchange(None)
        assert shared.named("weights", 1 << 20).eq(0).all()
        return taken

    for first, *before, after in as_ranks(RANKS, work):
        assert before == [first, first]
        assert first - after == (1 << 20) // 512


def test_a_rank_waits_until_memory_is_filled() -> None:
    def work(peers: ThreadPeers) -> int:
        shared = opened(peers)
        memory = shared.named("weights", 100)
        if peers.rank == 0:
            assert not shared.is_ready("weights")
            memory.fill_(9)
            shared.set_ready("weights")
        else:
            shared.await_ready("weights")
        return int(memory.sum())

    assert as_ranks(RANKS, work) == [900] * RANKS


def test_what_is_withdrawn_is_let_go_of_first() -> None:
    left = threading.Event()

    def work(peers: ThreadPeers) -> None:
        shared = opened(peers)
        if peers.rank == 0:
            shared.join("weights", lambda: b"handle")
            shared.set_ready("weights")
            peers.exchange(None)
            shared.withdraw("weights", wait=True)
            assert left.is_set()
            assert not shared.is_ready("weights")
        else:
            assert shared.await_ready("weights") == b"handle"
            peers.exchange(None)
            left.set()
            shared.leave("weights")

    as_ranks(2, work)


def test_a_rank_that_fails_frees_those_who_wait() -> None:
    def work(peers: ThreadPeers) -> None:
        shared = opened(peers)
        if peers.rank == 1:
            raise ValueError("broken")
        with pytest.raises(PeerFailed, match="rank 1: broken"):
            shared.await_ready("weights")
        shared.join("mine", lambda: b"")
        shared.withdraw("mine", wait=True)

    with pytest.raises(ValueError, match="broken"):
        as_ranks(2, work)


def test_the_table_takes_names_again_and_again() -> None:
    shared = SharedMemory.open(ThreadPeers(Meeting(1), 0))
    assert shared is not None
    for number in range(3):
        for name in map(str, range(50)):
            assert shared.join(name, name.encode) == name.encode()
            assert shared.is_ready(name) is False
            shared.set_ready(name)
        assert all(shared.leave(str(name)) for name in range(50)), number
    assert not shared.is_ready("7")
    shared.close()


def fill_and_hang(file: int, told: Connection) -> None:
    """What another process does, which has opened the file as a rank does."""
    told.send(os.getpid())
    opened = os.open(f"/proc/{told.recv()}/fd/{file}", os.O_RDWR)
    shared = SharedMemory(opened, ThreadPeers(Meeting(2), 1))
    shared.named("weights", 4096)[:10] = 5
    shared.set_ready("weights")
    shared.join("never ready", bytes)
    told.send("filled")
    with shared._locked():
        time.sleep(600)


def test_a_process_that_is_killed_leaves_its_memory_to_the_others_and_no_lock() -> None:
    file = os.memfd_create("test")
    os.ftruncate(file, 1 << 24)
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe()
    child = forking.Process(target=fill_and_hang, args=(file, there))
    child.start()
    here.recv()
    here.send(os.getpid())
    assert here.recv() == "filled"

    class Peers(ThreadPeers):
        def check(self) -> None:
            if not child.is_alive():
                raise PeerFailed(f"rank 1 died of {child.exitcode}")

    shared = SharedMemory(file, Peers(Meeting(2), 0))
    child.kill()
    memory = shared.named("weights", 4096)
    shared.await_ready("weights")
    with pytest.raises(PeerFailed, match="rank 1 died of -9"):
        shared.await_ready("never ready")
    assert memory[:10].eq(5).all()
    child.join()
    shared.close()


# Components over it


class CountedSource:
    """Counts what is read."""

    def __init__(self, reads: Counter[str], fails: str = "") -> None:
        self._tensors = NET.state_dict()
        self.specs = SPEC.sources["base"].specs
        self._reads = reads
        self._fails = fails

    def read(self, name: str, out: Tensor) -> None:
        if name == self._fails:
            raise CheckpointError(f"{name} is damaged")
        self._reads[name] += 1
        out.copy_(self._tensors[name])


def of_group(peers: ThreadPeers, wanted: Residency, source: object = None) -> DeviceManager:
    spec = SPEC if source is None else replace(SPEC, sources={"base": source})
    return DeviceManager([spec], HostBackend(peers=peers), wanted, adapters=ADAPTERS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", STREAMED)
def test_ranks_have_the_bits_of_one(wanted: Residency) -> None:
    right = RIGHT if wanted.mode != "dynamic" else None

    def work(peers: ThreadPeers) -> list[Tensor]:
        with of_group(peers, wanted) as manager:
            perform(manager)
            results = perform(manager)
            peers.exchange(None)
            return results

    first, *others = as_ranks(RANKS, work)
    for results in [first, *others]:
        assert all(map(torch.equal, results, right or first))


@pytest.mark.parametrize("wanted", [STREAMED[0], STREAMED[2]])
def test_every_tensor_is_read_once_for_all(wanted: Residency) -> None:
    reads: Counter[str] = Counter()

    def work(peers: ThreadPeers) -> list[int]:
        mine: Counter[str] = Counter()
        with of_group(peers, wanted, CountedSource(mine)) as manager:
            perform(manager)
            perform(manager)
            peers.exchange(None)
            file = manager.backend.board._file
            taken = os.fstat(file).st_blocks * 512
            host = manager.backend.host_bytes
            peers.exchange(None)
        reads.update(mine)
        return [len(mine), taken, host]

    found = as_ranks(RANKS, work)
    assert set(reads.values()) == {1}
    assert len(reads) == len(NET.state_dict())
    for tensors, taken, host in found:
        assert tensors  # each has its part
        # The table, and pages that are not full, are little beside a second copy of real weights.
        assert taken == found[0][1]
        assert host == found[0][2]


def test_a_file_that_one_rank_cannot_read_ends_all_and_the_next_request_is_right() -> None:
    """Rank 1 reads block 1."""
    source_failed = threading.Event()

    def work(peers: ThreadPeers) -> None:
        source = CountedSource(Counter(), "blocks.1.norm.weight" if peers.rank == 1 else "")
        with of_group(peers, STREAMED[0], source) as manager:
            with pytest.raises((CheckpointError, PeerFailed)) as raised:
                try:
                    perform(manager)
                except CheckpointError as error:
                    peers.meeting.failure = str(error)
                    source_failed.set()
                    raise
            assert "damaged" in str(raised.value)
            source_failed.wait(30)
            peers.exchange(None)
            peers.meeting.failure = source._fails = ""
            peers.exchange(None)
            assert all(map(torch.equal, perform(manager), RIGHT))
            peers.exchange(None)

    as_ranks(2, work)


@pytest.mark.parametrize("place", ["snapshot", "streamed"])
def test_other_components_may_be_borrowed_by_some_ranks_alone(place: Place) -> None:
    """Whoever needs a unit first reads it, and nobody waits for a rank that does not come."""
    reads = [Counter[str]() for _ in range(RANKS)]

    def work(peers: ThreadPeers) -> None:
        source = CountedSource(reads[peers.rank])
        specs = [SPEC, replace(SPEC, name="other", sources={"base": source})]
        wanted = Residency(places={"other": place})
        backend = HostBackend(peers=peers)
        with DeviceManager(specs, backend, wanted, adapters=ADAPTERS) as manager:
            for ranks in ({1}, {0, 1, 2}, {2}):
                if peers.rank in ranks:
                    with torch.inference_mode(), manager.borrow("other", Net) as net:
                        assert torch.equal(net(X), NET(X))
                peers.exchange(None)

    as_ranks(RANKS, work)
    assert [set(each.values()) for each in reads] == [set(), {1}, set()]


def test_plans_change_and_change_back() -> None:
    def work(peers: ThreadPeers) -> None:
        with of_group(peers, STREAMED[0]) as manager:
            for wanted in (*STREAMED[:2], Residency("resident"), *STREAMED[3:], STREAMED[0]):
                manager.configure(wanted)
                results = perform(manager)
                if wanted.mode != "dynamic":
                    assert all(map(torch.equal, results, RIGHT))
            peers.exchange(None)

    as_ranks(2, work)
