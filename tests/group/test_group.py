"""Groups of processes: orders are carried out together, and what fails on one fails on all."""

import os
from collections.abc import Iterator

import pytest
import torch

from entracte.errors import Cancelled, EntracteError, NotFinite, OutOfMemory, PeerFailed
from entracte.group import Leader
from entracte.group.leader import Patience

from .work import Steps, carry_out, expected, processes, refuse, started

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair() -> Iterator[Leader]:
    """A group of two, for all tests: each leaves it able to work."""
    leader = started([CPU] * 2)
    yield leader
    leader.close()


def test_all_ranks_carry_out_an_order(pair: Leader) -> None:
    assert carry_out(pair, Steps()) == expected(2)


def test_all_ranks_stop_after_the_same_step(pair: Leader) -> None:
    before = processes(pair)
    with pytest.raises(Cancelled):
        carry_out(pair, Steps(stop=True))
    assert carry_out(pair, Steps()) == expected(2)
    assert processes(pair) == before


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("raises", NotFinite, r"rank 1 \(cpu\): a stage gave NaN"),
        ("runs out", OutOfMemory, r"rank 1 \(cpu\): computing: 1 byte asked for"),
        ("mistake", PeerFailed, r"rank 1 \(cpu\) failed: KeyError: 'a mistake'"),
    ],
)
def test_an_error_of_one_rank_ends_all(
    pair: Leader, fault: str, kind: type[EntracteError], words: str
) -> None:
    """With that rank's reason, though the leader is in an exchange with it; no process ends."""
    before = processes(pair)
    with pytest.raises(kind, match=words):
        carry_out(pair, Steps(fault=fault))
    assert carry_out(pair, Steps()) == expected(2)
    assert processes(pair) == before


def test_what_a_rank_logs_is_in_the_leaders_log(
    pair: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """With its name, and errors with their traceback."""
    carry_out(pair, Steps(fault="warns"))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("entracte.a.module", "WARNING")
    assert record.getMessage() == "rank 1 (cpu): there are 5 apples"
    caplog.clear()
    with pytest.raises(PeerFailed):
        carry_out(pair, Steps(fault="mistake"))
    told = next(each.getMessage() for each in caplog.records if each.levelname == "ERROR")
    assert told.startswith("rank 1 (cpu): failed\nTraceback")
    assert "in do\n" in told
    assert told.endswith("KeyError: 'a mistake'")


def test_a_rank_that_is_killed(pair: Leader) -> None:
    """Ends the order with its reason, and is started again for the next."""
    (before,) = processes(pair)
    with pytest.raises(PeerFailed, match=r"rank 1 \(cpu\) was killed by SIGKILL"):
        carry_out(pair, Steps(fault="dies"))
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert carry_out(pair, Steps()) == expected(2)


@pytest.mark.slow
def test_an_error_of_the_leader_ends_all(pair: Leader) -> None:
    with pytest.raises(NotFinite, match="^a stage gave NaN"):
        carry_out(pair, Steps(fault="raises", faulty=0))
    assert carry_out(pair, Steps()) == expected(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "patience", "words"),
    [
        ("freeze", Patience(silence=10), "has not answered for 10 s and was ended"),
        ("hang", Patience(stalled=10), "has not gone on for 10 s and was ended"),
    ],
)
def test_a_rank_that_hangs(fault: str, patience: Patience, words: str) -> None:
    leader = started([CPU] * 2, patience)
    with pytest.raises(PeerFailed, match=rf"rank 1 \(cpu\) {words}"):
        carry_out(leader, Steps(fault=fault))
    assert carry_out(leader, Steps()) == expected(2)
    leader.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raises", "dies"])
def test_four_ranks(fault: str) -> None:
    """Those that are in an exchange with each other are freed, too."""
    leader = started([CPU] * 4)
    assert carry_out(leader, Steps()) == expected(4)
    with pytest.raises(EntracteError, match=r"rank 2 \(cpu\)"):
        carry_out(leader, Steps(fault=fault, faulty=2))
    assert carry_out(leader, Steps()) == expected(4)
    leader.close()


@pytest.mark.slow
def test_a_rank_that_does_not_open() -> None:
    leader = Leader([CPU] * 2, refuse)
    with pytest.raises(PeerFailed, match="this rank does not open"):
        leader.exchange(0)
    with pytest.raises(NotFinite, match=r"rank 1 \(cpu\): this rank does not open"):
        leader.wait_until_open()
    leader.close()


@pytest.mark.slow
def test_followers_end_with_their_leader() -> None:
    """At once, however it ends: their sockets are closed."""
    leader = started([CPU] * 2)
    follower = leader._followers[0].process
    follower.close()
    assert follower.how_it_ended() == (0, "ended with exit code 0")
