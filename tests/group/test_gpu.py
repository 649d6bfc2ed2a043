"""Groups on GPUs: NCCL can end an exchange, so no process ends with one."""

from collections.abc import Iterator

import pytest
import torch

from entracte.errors import Cancelled, EntracteError, PeerFailed
from entracte.group import Leader

from .work import Fault, Steps, carry_out, expected, processes, started

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU"),
]


@pytest.fixture(scope="module")
def pair() -> Iterator[Leader]:
    leader = started([torch.device("cuda", number) for number in range(2)])
    yield leader
    leader.close()


@pytest.mark.parametrize("faulty", [0, 1])
@pytest.mark.parametrize("fault", ["raises", "runs out", "mistake"])
def test_an_error_of_one_rank_ends_all(pair: Leader, fault: Fault, faulty: int) -> None:
    assert carry_out(pair, Steps()) == expected(2)
    before = processes(pair)
    with pytest.raises((EntracteError, KeyError)):
        carry_out(pair, Steps(fault=fault, faulty=faulty))
    assert carry_out(pair, Steps()) == expected(2)
    assert processes(pair) == before


def test_all_ranks_stop_after_the_same_step(pair: Leader) -> None:
    before = processes(pair)
    with pytest.raises(Cancelled):
        carry_out(pair, Steps(stop=True))
    assert carry_out(pair, Steps()) == expected(2)
    assert processes(pair) == before


def test_a_rank_that_is_killed(pair: Leader) -> None:
    with pytest.raises(PeerFailed, match=r"rank 1 \(cuda:1\) was killed by SIGKILL"):
        carry_out(pair, Steps(fault="dies"))
    assert carry_out(pair, Steps()) == expected(2)
