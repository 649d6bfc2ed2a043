"""Weights that are stored in other forms: expanded on arrival, and the same bits in every mode."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.errors import OutOfMemory, ResidencyError
from entracte.residency import (
    BASE,
    ComponentSpec,
    DeviceManager,
    Residency,
    Stored,
    TensorSource,
    TensorSpec,
    WeightFormat,
    WeightPhase,
)
from entracte.residency.backends.host import HostBackend
from entracte.residency.backends.protocol import Stream
from entracte.residency.buffer import Buffer
from entracte.residency.buffer_key import BlockWeights
from entracte.residency.formats import Expansion, join_neighbours
from entracte.residency.loading import WeightLoader
from entracte.residency.plan import Plan, Sizes, make_plan
from entracte.residency.policy import ComponentPolicy
from entracte.residency.simulated import (
    HostWaitInStep,
    SimulatedAccelerator,
    UnorderedRead,
    UnorderedWrite,
)

from .formatted import AS_IT_IS, Float8, Int8, expected, make_manager, make_source, make_spec
from .test_faults import cancel
from .test_same_bits import ROUNDING, Phases, schedules, wishes
from .test_same_bits import name as named
from .toy import ADAPTERS, BLOCKS, ONE, PHASES, TWO, Net, perform

FUSED = Residency("fused", merged_blocks=3)
STREAMED = Residency("fused", resident_blocks=2, merged_blocks=2)
LOW_VRAM = Residency("snapshot", resident_blocks=3)
FROM_FILES = Residency("fused", resident_blocks=2, places={"net": "disk"})
ORIGINAL = Residency("original")
WAYS = (
    *(Residency("resident"), ORIGINAL, Residency("original", resident_blocks=3), FUSED, STREAMED),
    *(LOW_VRAM, Residency("snapshot", "aggressive"), FROM_FILES),
    Residency("snapshot", "aggressive", resident_blocks=3, places={"net": "disk"}),
    *(Residency("dynamic"), Residency("dynamic", resident_blocks=2)),
    replace(STREAMED, pinned_memory=0),
)
SCHEDULES: tuple[Phases, ...] = (
    PHASES,
    (WeightPhase(ONE, 1), WeightPhase(TWO, 2)),
    (WeightPhase(BASE, 2),),
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def check(results: list[Tensor], wanted: Residency, phases: Phases) -> None:
    right = expected(phases)
    assert len(results) == len(right)
    for result, each, phase in zip(results, right, phases, strict=True):
        if wanted.mode == "dynamic" and phase.weights.adapters:
            difference = (result.float() - each.float()).norm()
            assert difference <= ROUNDING * each.float().norm()
        else:
            assert torch.equal(result, each)


# Bits


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wanted", WAYS, ids=named)
def test_every_mode_gives_the_same_bits_request_after_request(wanted: Residency) -> None:
    for phases in SCHEDULES:
        manager = make_manager(SimulatedAccelerator(), wanted)
        for _ in range(2):
            check(perform(manager, phases), wanted, phases)


@pytest.mark.slow
@settings(max_examples=8)
@given(requests=st.lists(st.tuples(wishes, schedules), min_size=1, max_size=4))
def test_modes_may_change_between_the_requests_of_one_manager(
    requests: list[tuple[Residency, list[WeightPhase]]],
) -> None:
    manager = make_manager(SimulatedAccelerator(), Residency())
    for wanted, phases in requests:
        manager.configure(wanted)
        check(perform(manager, tuple(phases)), wanted, tuple(phases))
    manager.release()
    backend = manager.backend
    assert isinstance(backend, SimulatedAccelerator)
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


def test_what_was_held_as_it_is_stored_is_expanded_elsewhere() -> None:
    """Small units take the same memory in both forms, so that their buffers stay."""
    manager = make_manager(SimulatedAccelerator(), FUSED)
    for wanted in (FUSED, ORIGINAL, FUSED, Residency("resident")):
        manager.configure(wanted)
        check(perform(manager), wanted, PHASES)


@pytest.mark.parametrize("wanted", [STREAMED, ORIGINAL, LOW_VRAM], ids=named)
def test_cancelled_anywhere(wanted: Residency) -> None:
    """The next request has other weights: all that is held is replaced, and so is overwritten."""
    manager = make_manager(SimulatedAccelerator(), wanted)
    for after in range(1, 2 * (BLOCKS + 1) + 2, 3):
        cancel(manager, (WeightPhase(ONE, 2),), after)
        check(perform(manager, SCHEDULES[2]), wanted, SCHEDULES[2])


@pytest.mark.parametrize("place", ["resident", "snapshot", "streamed", "disk"])
def test_a_component_that_is_lent(place: str) -> None:
    """It is expanded for its loan, and rests as it is stored."""
    specs = [make_spec(), replace(make_spec(), name="other")]
    backend = SimulatedAccelerator()
    manager = DeviceManager(specs, backend, Residency(places={"other": place}), adapters=ADAPTERS)
    x = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
    for _ in range(2):
        with manager.borrow("other", Net) as net:
            assert torch.equal(net(x), expected((WeightPhase(BASE),))[0])
    host = sum(row.nbytes for row in manager.residency() if row.where == "pinned")
    assert host == (sum(sizes().at_rest) if place in ("snapshot", "streamed") else 0)


def test_mode_dynamic_needs_a_module_that_computes_from_what_is_stored() -> None:
    spec = replace(make_spec(), build_stored=None)
    manager = DeviceManager([spec], HostBackend(), Residency("dynamic"), adapters=ADAPTERS)
    with pytest.raises(ResidencyError, match="cannot compute from its weights as they are stored"):
        manager.plan(PHASES)


# Memory


def sizes() -> Sizes:
    reader = make_manager(HostBackend(), Residency())._components["net"]._reader
    return Sizes(reader.sizes, {}, reader.stored_sizes)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("wanted", WAYS[:-1], ids=named)
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


N = 6
LARGE = Sizes((*[1000] * N, 300), {"one": (10,) * (N + 1)}, {u: 500 for u in range(N) if u != 2})


def planned(policy: ComponentPolicy, phases: Phases = PHASES) -> Plan:
    return make_plan("net", LARGE, phases, policy, unified=False)


def test_what_rests_has_its_stored_size_and_what_is_used_its_expanded_one() -> None:
    def bytes_of(plan: Plan, *roles: str) -> int:
        return sum(b.nbytes for b in plan.buffers if b.key.role in roles)

    at_rest, expanded = sum(LARGE.at_rest), sum(LARGE.units)
    fused = planned(ComponentPolicy("fused", merged_blocks=2))
    assert bytes_of(fused, "weights") == at_rest
    assert bytes_of(fused, "kept", "slot") == 2 * 1000 + 300 + 2 * 1000
    assert bytes_of(fused, "stored slot") == 0
    streamed = planned(ComponentPolicy("fused", resident_blocks=0))
    assert streamed.nbytes("host", "always") == at_rest - 300
    assert bytes_of(streamed, "stored slot") == 2 * 500
    dynamic = planned(ComponentPolicy("dynamic", resident_blocks=2))
    assert dynamic.nbytes("device", "always") + dynamic.nbytes("host", "always") < expanded + 1000
    snapshot = planned(ComponentPolicy("snapshot"))
    assert snapshot.nbytes("host", "always") == at_rest + expanded
    original = planned(ComponentPolicy("original"))
    assert original.nbytes("host", "always") == at_rest + sum(LARGE.factors["one"])
    lent = planned(ComponentPolicy("snapshot", resident_blocks=0, stays=False), SCHEDULES[2])
    assert (lent.nbytes("host", "always"), lent.nbytes("device", "always")) == (at_rest, 0)


def wide(stored: bool) -> ComponentSpec:
    """With linears that are large enough for their bytes to tell."""
    net = Net(width=64).bfloat16()
    tensors, expanded = dict(net.state_dict()), {}
    for name, weight in net.state_dict().items():
        if stored and weight.ndim == 2:
            tensors[name] = weight.to(torch.float8_e4m3fn)
            part = TensorSpec(torch.float8_e4m3fn, tuple(weight.shape))
            form = Stored(Float8(), {"": part})
            expanded[name] = TensorSpec(torch.bfloat16, tuple(weight.shape), stored=form)

    def build() -> Net:
        with torch.device("meta"):
            return Net(width=64).bfloat16()

    return ComponentSpec("net", build, {"base": TensorSource(tensors, None, expanded)}, "blocks")


@pytest.mark.parametrize("wanted", [Residency("fused", resident_blocks=0), LOW_VRAM], ids=named)
def test_half_the_bytes_come_over_the_link(wanted: Residency) -> None:
    moved, x = [], torch.ones(2, 64, dtype=torch.bfloat16)
    for stored in (True, False):
        backend = SimulatedAccelerator()
        manager = DeviceManager([wide(stored)], backend, wanted)
        phases = (WeightPhase(BASE, 3),)
        perform(manager, phases, x)
        before = backend.traffic.bytes_in
        perform(manager, phases, x)
        moved.append(backend.traffic.bytes_in - before)
    assert 0.5 < moved[0] / moved[1] < 0.56


# Ordering


def twice(wanted: Residency) -> DeviceManager:
    manager = make_manager(SimulatedAccelerator(), wanted)
    for _ in range(2):
        perform(manager)
    return manager


def only_stored_slots(
    monkeypatch: pytest.MonkeyPatch, method: str, broken: Callable[[Buffer, Stream], None]
) -> None:
    """Break one line of ordering, for the slots in which stored weights arrive only."""
    right = getattr(Buffer, method)

    def either(buffer: Buffer, stream: Stream) -> None:
        (broken if buffer.key.role == "stored slot" else right)(buffer, stream)

    monkeypatch.setattr(Buffer, method, either)


ARRIVING = (ORIGINAL, STREAMED, LOW_VRAM, FROM_FILES)


@pytest.mark.parametrize("wanted", ARRIVING, ids=named)
def test_an_expansion_that_does_not_wait_for_the_copy(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_stored_slots(monkeypatch, "acquire", lambda buffer, stream: buffer.join())
    with pytest.raises(UnorderedRead, match="merges reads"):
        twice(wanted)


@pytest.mark.parametrize("wanted", ARRIVING, ids=named)
def test_an_expansion_that_is_not_recorded(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_stored_slots(monkeypatch, "release", lambda buffer, stream: None)
    with pytest.raises(UnorderedWrite):
        twice(wanted)


@pytest.mark.parametrize("wanted", ARRIVING, ids=named)
def test_a_copy_into_what_is_still_being_expanded(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_waiting(buffer: Buffer, stream: Stream) -> None:
        buffer._content = None

    only_stored_slots(monkeypatch, "begin_writing", without_waiting)
    with pytest.raises(UnorderedWrite, match="still being read"):
        twice(wanted)


@pytest.mark.parametrize("wanted", [FUSED, STREAMED], ids=named)
def test_an_expansion_into_a_block_that_still_computes(
    wanted: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Buffer.begin_writing

    def without_waiting(buffer: Buffer, stream: Stream) -> None:
        if buffer.key.role == "slot":
            buffer._content = None
        else:
            begin(buffer, stream)

    monkeypatch.setattr(Buffer, "begin_writing", without_waiting)
    with pytest.raises(UnorderedWrite, match="still being read"):
        twice(wanted)


def test_an_expansion_that_the_host_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    load = WeightLoader.load

    def load_and_wait(loader: WeightLoader, target: Buffer, content: BlockWeights) -> None:
        load(loader, target, content)
        loader._backend.synchronize()

    monkeypatch.setattr(WeightLoader, "load", load_and_wait)
    with pytest.raises(HostWaitInStep):
        twice(STREAMED)


# What is stored


def test_stored_tensors_are_read_as_they_are() -> None:
    source = make_source()
    spec = source.specs["blocks.0.inner.weight"]
    assert set(spec.parts) == {"", "_scale"}
    assert "blocks.0.inner.weight_scale" not in source.specs
    assert source.specs[f"blocks.{AS_IT_IS}.inner.weight"].parts == {
        "": TensorSpec(torch.bfloat16, (16, 8))
    }
    assert set(sizes().stored) == set(range(BLOCKS + 1)) - {AS_IT_IS}


def test_neighbours_are_expanded_as_one() -> None:
    numbers = torch.randn(5 * 256).to(torch.float8_e4m3fn)
    stored = [numbers[256 * place :][:256].view(16, 16) for place in (0, 1, 2, 4)]
    found, wanted = torch.zeros(4 * 256), torch.zeros(4 * 256)

    def expansions(memory: Tensor, formats: WeightFormat) -> list[Expansion]:
        outs = memory.view(4, 16, 16).unbind()
        return [Expansion(formats, {"": part}, out) for part, out in zip(stored, outs, strict=True)]

    joined = join_neighbours(expansions(found, Float8()))
    assert [each.out.numel() for each in joined] == [3 * 256, 256]  # the last is stored apart
    for each in (*joined, *expansions(wanted, Float8())):
        each.carry_out()
    assert torch.equal(found, wanted)
    assert torch.equal(found[:768], numbers[:768].float())
    assert len(join_neighbours(expansions(found, Int8()))) == 4
