"""Every way of holding weights gives the same results; only dynamic rounds differently."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.residency import BASE, Backend, Residency, WeightPhase
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator

from . import toy
from .toy import BLOCKS, ONE, PHASES, TWO, make_manager, perform

Phases = tuple[WeightPhase, ...]

SCHEDULES: tuple[Phases, ...] = (
    (WeightPhase(BASE, 2), WeightPhase(ONE, 1)),
    (WeightPhase(ONE, 1), WeightPhase(TWO, 2)),
    (WeightPhase(BASE, 1), WeightPhase(BASE, 2)),
    (WeightPhase(ONE, 2),),
)
ROUNDING = 0.06  # relative, of dynamic; another weight set makes a difference of 0.2 or more
BACKENDS: dict[str, Callable[[], Backend]] = {
    "host": HostBackend,
    "simulated": SimulatedAccelerator,
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


expected = cache(toy.expected)


def ways() -> list[Residency]:
    """Every mode and policy, with none, one, some and all blocks resident and kept."""
    found = [Residency("resident")]
    for m in (None, 0, 1, 3, BLOCKS):
        found += [
            Residency("original", resident_blocks=m),
            Residency("dynamic", resident_blocks=m),
            Residency("snapshot", "low-vram", resident_blocks=m),
            Residency("snapshot", "aggressive", resident_blocks=m),
            *(Residency("fused", resident_blocks=m, merged_blocks=k) for k in (0, 1, 3, BLOCKS)),
        ]
    return found


def name(wanted: Residency) -> str:
    m, k = wanted.resident_blocks, wanted.merged_blocks
    return f"{wanted.mode}-{wanted.snapshot_policy}-m{m}-k{k}-{wanted.places.get('net', '')}"


def check(results: list[Tensor], wanted: Residency, phases: Phases) -> None:
    right = expected(phases)
    assert len(results) == len(right)
    for result, each, phase in zip(results, right, phases, strict=True):
        if wanted.mode == "dynamic" and phase.weights.adapters:
            difference = (result.float() - each.float()).norm()
            assert difference <= ROUNDING * each.float().norm()
        else:
            assert torch.equal(result, each)


@pytest.mark.sampled(20)
@pytest.mark.parametrize(
    ("wanted", "backend"),
    [*((each, "simulated") for each in ways()), *((each, "host") for each in ways()[::5])],
    ids=lambda each: each if isinstance(each, str) else name(each),
)
@pytest.mark.parametrize("rest", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_mode_gives_the_same_bits_request_after_request(
    wanted: Residency, backend: str, rest: bool
) -> None:
    """Under two of the schedules in turn, and the rest of them."""
    for phases in SCHEDULES[(ways().index(wanted) + rest) % 2 :: 2]:
        manager = make_manager(BACKENDS[backend](), wanted)
        for _ in range(3):
            check(perform(manager, phases), wanted, phases)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("wanted", ways()[::3], ids=name)
def test_with_the_files_as_home_too(wanted: Residency) -> None:
    wanted = Residency(
        wanted.mode,
        wanted.snapshot_policy,
        wanted.resident_blocks,
        wanted.merged_blocks,
        {"net": "disk"},
    )
    manager = make_manager(SimulatedAccelerator(), wanted)
    for _ in range(3):
        check(perform(manager), wanted, PHASES)


def test_weight_sets_differ_so_that_a_phase_under_the_wrong_one_is_seen() -> None:
    """What stage 2 gives under base weights, or request 2's stage 1 under merged ones."""
    base, merged, other = (expected((WeightPhase(each, 2),))[0] for each in (BASE, ONE, TWO))
    for one, another in ((base, merged), (base, other), (merged, other)):
        assert (one.float() - another.float()).norm() > 0.2 * one.float().norm()
    for phases in SCHEDULES:
        for result in expected(phases):
            assert result.isfinite().all()


@pytest.mark.parametrize("wanted", [each for each in ways() if each.resident_blocks in (None, 3)])
def test_the_second_phase_is_merged_and_the_next_request_begins_with_the_base(
    wanted: Residency,
) -> None:
    """By the difference that each phase makes, not by what the whole must be."""
    manager = make_manager(HostBackend(), wanted)
    phases = (WeightPhase(BASE), WeightPhase(ONE))
    plain, merged = perform(manager, phases)
    again, _ = perform(manager, phases)
    assert torch.equal(again, plain)
    assert (merged.float() - plain.float()).norm() > 0.2 * plain.float().norm()


def test_factors_that_come_to_lie_elsewhere_are_found() -> None:
    """Modules that apply an adapter beside their weights do not outlive its memory."""
    wanted = Residency("dynamic")
    manager = make_manager(SimulatedAccelerator(), wanted)
    for phases in (PHASES, (WeightPhase(BASE),), PHASES):
        check(perform(manager, phases), wanted, phases)


weight_sets = st.sampled_from([BASE, ONE, TWO])
schedules = st.lists(st.builds(WeightPhase, weight_sets, st.integers(0, 3)), min_size=1, max_size=3)
dials = st.none() | st.integers(0, BLOCKS)
homes = st.sampled_from([{}, {"net": "disk"}])
wishes = st.one_of(
    st.builds(Residency, st.just("resident"), places=homes),
    st.builds(
        Residency,
        st.sampled_from(["original", "dynamic", "snapshot"]),
        st.sampled_from(["low-vram", "aggressive"]),
        dials,
        places=homes,
    ),
    st.builds(
        Residency, st.just("fused"), resident_blocks=dials, merged_blocks=dials, places=homes
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=settings().max_examples // 4)
@given(requests=st.lists(st.tuples(wishes, schedules), min_size=1, max_size=4))
def test_modes_may_change_between_the_requests_of_one_manager(
    backend: str, requests: list[tuple[Residency, list[WeightPhase]]]
) -> None:
    manager = make_manager(BACKENDS[backend](), Residency())
    for wanted, phases in requests:
        manager.configure(wanted)
        check(perform(manager, tuple(phases)), wanted, tuple(phases))
    manager.release()
    if isinstance(manager.backend, (HostBackend, SimulatedAccelerator)):
        assert (manager.backend.device_bytes, manager.backend.host_bytes) == (0, 0)
