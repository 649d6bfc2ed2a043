"""Several simulated devices: races between them, their links, budgets, and our code broken on
purpose.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.residency import BASE, Adapter, DeviceManager, Residency, WeightPhase, WeightSet
from entracte.residency.buffer import Buffer
from entracte.residency.buffer_key import BlockWeights
from entracte.residency.peer_copies import PeerCopies
from entracte.residency.sharing import AwaitedFill, PeerOffer, SharedEntry
from entracte.residency.simulated import (
    RaceError,
    SimulatedAccelerator,
    SimulatedGroup,
    UnorderedRead,
    UnorderedWrite,
)

from .toy import ADAPTERS, ONE, PHASES, TWO, expected, make_spec, perform

SPEC = make_spec()
PEER = {"net": "peer"}
PEERS = (
    Residency("resident", places=PEER),
    Residency("fused", places=PEER),
    Residency("fused", merged_blocks=2, places=PEER),
    Residency("dynamic", places=PEER),
)
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


@settings(max_examples=8)
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


def break_nothing_else(seeds: int, wanted: Residency, error: type[RaceError]) -> None:
    """Some order of events shows the fault."""
    for seed in range(seeds):
        try:
            SimulatedGroup(2, seed=seed).run(lambda backend: requests(backend, (wanted,)))
        except error:
            return
    raise AssertionError(f"no order of events raised {error.__name__}")


@pytest.mark.parametrize("wanted", PEERS[:1])
def test_weights_offered_before_they_are_written(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = PeerOffer.publish

    def too_early(offer: PeerOffer, written: Callable[[], object]) -> None:
        publish(offer, lambda: None)

    monkeypatch.setattr(PeerOffer, "publish", too_early)
    break_nothing_else(20, wanted, UnorderedRead)


def test_weights_overwritten_while_a_peer_may_copy_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buffer, "withdraw", lambda buffer: None)
    with pytest.raises((RaceError, AssertionError)):
        break_nothing_else(20, PEERS[0], UnorderedWrite)
        raise AssertionError


def test_a_peer_that_leaves_before_its_copies_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Buffer.wait_on_host

    def at_once(buffer: Buffer) -> None:
        if buffer.key.tier != "peer":
            wait(buffer)

    monkeypatch.setattr(Buffer, "wait_on_host", at_once)
    break_nothing_else(20, PEERS[0], UnorderedWrite)


def test_a_peer_that_does_not_wait_for_what_it_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(copies: PeerCopies, content: BlockWeights) -> Buffer:
        raise NotImplementedError

    monkeypatch.setattr(SharedEntry, "wait", lambda entry: None)
    break_nothing_else(20, STREAMED[0], UnorderedRead)
    del get


def test_a_merged_copy_that_is_told_before_it_has_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AwaitedFill, "wait", lambda fill: None)
    break_nothing_else(20, STREAMED[0], UnorderedRead)
