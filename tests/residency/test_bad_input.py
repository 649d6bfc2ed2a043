"""Whatever is asked for wrongly is refused, with what would be right."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from entracte.errors import BudgetError, ResidencyError
from entracte.residency import (
    BASE,
    Backend,
    ComponentSpec,
    DeviceManager,
    Factors,
    Full,
    Residency,
    TensorSource,
    TensorSpec,
    WeightPhase,
    WeightSet,
    in_memory,
)
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator

from . import toy
from .toy import (
    ADAPTERS,
    BLOCKS,
    ONE,
    PHASES,
    Net,
    build,
    make_manager,
    make_spec,
    perform,
    read_factors,
)

X = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()

expected = cache(toy.expected)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


# Wishes that contradict themselves


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"mode": "fast"}, "mode 'fast' is not one of original, .*resident, legacy"),
        ({"mode": "snapshot", "snapshot_policy": "x"}, "'x' is not one of low-vram, aggressive"),
        (
            {"places": {"net": "cloud"}},
            "net 'cloud' is not one of resident, snapshot, streamed, disk",
        ),
        ({"mode": "fused", "resident_blocks": -1}, "resident_blocks is -1; it must be 0 or more"),
        ({"mode": "fused", "merged_blocks": -2}, "merged_blocks is -2; it must be 0 or more"),
        ({"mode": "snapshot", "merged_blocks": 2}, r"only to mode fused \(the mode is snapshot\)"),
        ({"mode": "resident", "resident_blocks": 2}, "leave resident_blocks out"),
    ],
)
def test_wishes_that_no_component_could_fulfil(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ResidencyError, match=message):
        Residency(**wishes)


def test_legacy_is_another_name_of_original() -> None:
    assert Residency("legacy").mode == "original"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (
            Residency("fused", resident_blocks=BLOCKS + 1),
            "8 resident blocks are asked for; net has 7: give 0 to 7",
        ),
        (
            Residency("fused", merged_blocks=BLOCKS + 1),
            "8 merged blocks are asked for; net has 7: give 0 to 7",
        ),
        (
            Residency("fused", resident_blocks=2, places={"net": "resident"}),
            "net is placed resident, and 2 resident blocks",
        ),
        (
            Residency("fused", resident_blocks=2, places={"net": "streamed"}),
            "net is placed streamed, and 2 resident blocks",
        ),
        (Residency("resident", places={"net": "streamed"}), "streamed, and mode resident is"),
        (
            Residency(places={"nut": "disk"}),
            "no component 'nut' to place; there are net",
        ),
    ],
)
def test_wishes_that_these_components_cannot_fulfil(wishes: Residency, message: str) -> None:
    with pytest.raises(ResidencyError, match=message):
        make_manager(HostBackend(), wishes)


def test_a_refused_change_leaves_the_manager_as_it_was() -> None:
    manager = make_manager(HostBackend(), Residency("fused"))
    perform(manager)
    with pytest.raises(ResidencyError):
        manager.configure(Residency("fused", resident_blocks=BLOCKS + 1))
    assert manager.wanted == Residency("fused")
    assert all(map(torch.equal, perform(manager), expected()))


def without_blocks(name: str = "net") -> ComponentSpec:
    return ComponentSpec(name, build, {"base": TensorSource(toy.make_net().state_dict())})


@pytest.mark.parametrize("adapted", ["net", "other"])
def test_a_component_in_one_piece_cannot_be_streamed(adapted: str) -> None:
    wanted = Residency("fused", places={"net": "streamed"})
    with pytest.raises(ResidencyError, match="net cannot be streamed.*: place it snapshot, disk"):
        DeviceManager(
            [without_blocks(), make_spec_named("other")], HostBackend(), wanted, adapted=adapted
        )
    with pytest.raises(ResidencyError, match="net has no blocks that could be resident"):
        DeviceManager([without_blocks()], HostBackend(), Residency("fused", resident_blocks=2))


def make_spec_named(name: str) -> ComponentSpec:
    return replace(make_spec(), name=name)


# Requests


@pytest.mark.parametrize("sweeps", [-1, -3])
def test_a_negative_number_of_sweeps(sweeps: int) -> None:
    with pytest.raises(ResidencyError):
        perform(make_manager(HostBackend(), Residency()), (WeightPhase(BASE, sweeps),))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mode", ["resident", "original", "dynamic", "snapshot", "fused"])
@pytest.mark.parametrize("policy", ["low-vram", "aggressive"])
def test_a_phase_may_have_no_sweep(mode: Any, policy: Any) -> None:
    phases = (WeightPhase(BASE, 0), WeightPhase(ONE, 1))
    manager = make_manager(SimulatedAccelerator(), Residency(mode, policy))
    for _ in range(2):
        _, result = perform(manager, phases)
        close = 0.06 if mode == "dynamic" else 0
        right = expected(phases)[1].float()
        assert (result.float() - right).norm() <= close * right.norm()


def test_a_request_without_phases() -> None:
    with pytest.raises(ResidencyError):
        perform(make_manager(HostBackend(), Residency()), ())


def test_a_source_or_component_that_does_not_exist() -> None:
    manager = make_manager(HostBackend(), Residency())
    with pytest.raises(ResidencyError, match="net has no source 'expert'"):
        perform(manager, (WeightPhase(WeightSet(source="expert")),))
    match = "no component 'nut'.*there are net"
    with pytest.raises(ResidencyError, match=match), manager.borrow("nut", Net):
        pass


def test_a_component_of_another_class() -> None:
    manager = make_manager(HostBackend(), Residency())
    match = "net is a Net, not a Linear"
    with pytest.raises(TypeError, match=match), manager.borrow("net", nn.Linear):
        pass
    assert all(map(torch.equal, perform(manager), expected()))


@pytest.mark.parametrize("pick", [lambda net: net.blocks[1], lambda net: net.blocks[2:]])
def test_single_blocks_cannot_be_had(pick: Callable[[Net], object]) -> None:
    manager = make_manager(HostBackend(), Residency())
    with manager.borrow("net", Net) as net, pytest.raises(ResidencyError, match="first to last"):
        pick(net)


# Budgets


def test_too_small_a_budget_names_what_fits() -> None:
    manager = make_manager(HostBackend(), Residency("resident", device_memory=20_000))
    with pytest.raises(BudgetError, match="than the .* allowed. This fits: Residency") as error:
        manager.plan(PHASES)
    assert named(error.value, manager.wanted).mode != "resident"


def named(error: BudgetError, wanted: Residency) -> Residency:
    """What an error says fits, as a user would ask for it."""
    assert error.nearest is not None
    asked = Residency(**error.nearest)
    assert str(error).endswith(f"This fits: {call(error.nearest)}")
    return replace(
        wanted,
        mode=asked.mode,
        resident_blocks=asked.resident_blocks,
        merged_blocks=None,
        places=asked.places,
    )


def call(arguments: Mapping[str, Any]) -> str:
    return f"Residency({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


@pytest.mark.slow
@given(
    mode=st.sampled_from(["resident", "original", "dynamic", "snapshot", "fused"]),
    device=st.integers(1000, 40_000),
    host=st.none() | st.integers(1000, 40_000),
    two=st.booleans(),
)
def test_what_a_message_names_does_fit(mode: Any, device: int, host: int | None, two: bool) -> None:
    specs = [make_spec(), make_spec_named("other")] if two else [make_spec()]
    backend = SimulatedAccelerator(device_limit=device, host_limit=host)
    wanted = Residency(mode, device_memory=device, host_memory=host)
    manager = DeviceManager(specs, backend, wanted, adapters=ADAPTERS)
    refused = None
    try:
        manager.plan(PHASES)
    except BudgetError as error:
        refused = error
    if refused is not None:
        assert (backend.peak_device_bytes, backend.peak_host_bytes) == (0, 0)
        assert refused.missing
        if refused.needs:
            words = r"The smallest plan, Residency\(.*\), needs .* and .* of the host"
            assert re.search(words, str(refused))
            return
        manager.configure(named(refused, wanted))
        manager.plan(PHASES)
    assume(host is None)  # loading takes a little more of the host for a moment
    results = perform(manager)
    if manager.wanted.mode != "dynamic":
        assert all(map(torch.equal, results, expected()))


def test_where_nothing_fits_the_smallest_plan_is_named() -> None:
    manager = make_manager(HostBackend(), Residency("resident", device_memory=2000))
    with pytest.raises(BudgetError, match="The smallest plan, Residency.*, resident_blocks=0"):
        manager.plan(PHASES)


def test_a_component_in_one_piece_is_told_what_fits_too() -> None:
    wanted = Residency("resident", device_memory=30_000)
    manager = DeviceManager([without_blocks()], HostBackend(), wanted, adapters=ADAPTERS)
    with pytest.raises(BudgetError, match="This fits: Residency.mode='snapshot'"):
        manager.plan(PHASES)


def test_a_loan_beyond_the_budget_is_refused() -> None:
    backend = HostBackend()
    manager = make_manager(backend, Residency("resident", device_memory=2000))
    with pytest.raises(BudgetError), manager.borrow("net", Net):
        pass
    assert backend.device_bytes == 0


def test_memory_that_another_component_gives_up_can_be_used_at_once() -> None:
    """A plan that fits is carried out, whatever was held before."""
    specs = [make_spec(), make_spec_named("other")]
    before, after = Residency(), Residency("fused", places={"other": "streamed"})
    planned = DeviceManager(specs, HostBackend(), after, adapters=ADAPTERS).plan(PHASES)
    backend = SimulatedAccelerator(device_limit=planned.device_bytes)
    manager = DeviceManager(specs, backend, before, adapters=ADAPTERS)
    with manager.borrow("other", Net):
        pass
    manager.configure(replace(after, device_memory=planned.device_bytes))
    assert all(map(torch.equal, perform(manager), expected()))


# Pinned memory that is refused


PAGEABLE = (
    Residency("original"),
    Residency("snapshot"),
    Residency("snapshot", resident_blocks=3),
    Residency("fused", resident_blocks=3),
)


@pytest.mark.parametrize("wanted", PAGEABLE)
def test_on_the_host_nothing_is_pinned(wanted: Residency) -> None:
    manager = make_manager(HostBackend(), replace(wanted, pinned_memory=0))
    assert all(map(torch.equal, perform(manager), expected()))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("limit", [0, 5000])
@pytest.mark.parametrize("refusing", ["device", "budget"])
@pytest.mark.parametrize("wanted", PAGEABLE)
def test_without_pinned_memory_results_are_right_and_rows_say_so(
    wanted: Residency, refusing: str, limit: int
) -> None:
    backend = SimulatedAccelerator(pinned_limit=limit if refusing == "device" else None)
    if refusing == "budget":
        wanted = replace(wanted, pinned_memory=limit)
    manager = make_manager(backend, wanted)
    for _ in range(2):
        assert all(map(torch.equal, perform(manager), expected()))
    sums = dict.fromkeys(("device", "pinned", "pageable"), 0)
    for row in manager.residency():
        sums[row.where] += row.nbytes
    assert sums["pinned"] == backend.pinned_bytes <= limit
    assert sums["pageable"] == backend.host_bytes - backend.pinned_bytes > 0


# Adapters


class Quantised(nn.Linear):
    """int8 weights with a scale for every output."""

    def __init__(self) -> None:
        super().__init__(8, 8, bias=False, device="meta")
        integers = torch.empty(8, 8, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(integers, requires_grad=False)
        self.register_buffer("scale", torch.empty(8, 1, dtype=torch.bfloat16, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.bfloat16() * self.scale)


class QuantisedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = Quantised()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class QuantisedSource(TensorSource):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        integers = torch.randint(-9, 9, (8, 8), generator=generator, dtype=torch.int8)
        super().__init__({"linear.weight": integers, "linear.scale": torch.full((8, 1), 0.1)})
        self.weight = integers * 0.1
        self.specs = {
            "linear.weight": TensorSpec(torch.int8, (8, 8), mergeable=False),
            "linear.scale": TensorSpec(torch.bfloat16, (8, 1)),
        }


def quantised_factors(name: str) -> Mapping[str, Factors]:
    return {"linear.weight": read_factors(name)["first.weight"]}


def quantised(mode: Any) -> tuple[QuantisedSource, DeviceManager]:
    source = QuantisedSource()
    specs = [ComponentSpec("net", QuantisedNet, {"base": source})]
    wanted = Residency(mode)
    return source, DeviceManager(
        specs, HostBackend(), wanted, adapters=in_memory(quantised_factors)
    )


@pytest.mark.parametrize("mode", ["original", "snapshot", "fused", "resident"])
def test_nothing_is_merged_into_quantised_weights(mode: str) -> None:
    _, manager = quantised(mode)
    with pytest.raises(ResidencyError, match="net is quantised.*linear.weight.*use mode dynamic"):
        manager.plan(PHASES)
    with manager.request((WeightPhase(BASE),)) as run, run.phase(0, QuantisedNet) as net:
        assert net(X).isfinite().all()


def test_adapters_are_applied_beside_quantised_weights() -> None:
    source, manager = quantised("dynamic")
    factors = quantised_factors("one")["linear.weight"]
    merged = source.weight + factors.up.float() @ factors.down.float()
    with manager.request((WeightPhase(ONE),)) as run, run.phase(0, QuantisedNet) as net:
        result = net(X).float()
    right = X.float() @ merged.T
    assert (result - right).norm() <= 2e-2 * right.norm()


def manager_with(
    factors: Mapping[str, Factors], wanted: Residency, backend: Backend
) -> DeviceManager:
    return DeviceManager([make_spec()], backend, wanted, adapters=in_memory(lambda name: factors))


def pair(rows: int, columns: int, rank: int = 2) -> Factors:
    generator = torch.Generator().manual_seed(rank)
    up = torch.randn(rows, rank, generator=generator) / rank
    return Factors(torch.randn(rank, columns, generator=generator).bfloat16(), up.bfloat16())


@pytest.mark.parametrize("mode", ["original", "dynamic", "snapshot", "fused", "resident"])
@pytest.mark.parametrize("module", ["blocks.3.middle.weight", "first", "blocks.7.inner.weight"])
def test_an_adapter_of_a_module_that_is_not_there(mode: Any, module: str) -> None:
    backend = HostBackend()
    manager = manager_with({module: pair(8, 8)}, Residency(mode), backend)
    with pytest.raises(ResidencyError, match=f"{re.escape(module)}, which is not a parameter"):
        perform(manager)
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


def test_an_adapter_beside_what_is_no_linear() -> None:
    manager = manager_with(
        {"blocks.0.norm.weight": Full(torch.ones(8))}, Residency("dynamic"), HostBackend()
    )
    with pytest.raises(ResidencyError, match=r"blocks\.0\.norm\.weight belongs to a LayerNorm"):
        perform(manager)


def test_a_manager_without_adapters() -> None:
    manager = DeviceManager([make_spec()], HostBackend(), Residency())
    with pytest.raises(ResidencyError, match="'one'.*without adapters"):
        perform(manager)


@pytest.mark.parametrize("home", ["snapshot", "disk"])
def test_an_adapter_may_be_larger_than_any_block(home: Any) -> None:
    factors = {"blocks.2.inner.weight": pair(16, 8, rank=200), "last.weight": pair(8, 8)}
    wanted = Residency("fused", places={"net": home})
    results = perform(manager_with(factors, wanted, SimulatedAccelerator()))
    assert all(map(torch.equal, results, perform(manager_with(factors, wanted, HostBackend()))))


@pytest.mark.parametrize("mode", ["original", "dynamic", "snapshot", "fused", "resident"])
def test_an_adapter_of_a_few_modules_changes_no_other(mode: Any) -> None:
    factors = {"blocks.2.inner.weight": pair(16, 8)}
    manager = manager_with(factors, Residency(mode), SimulatedAccelerator())
    base = toy.make_net().state_dict()
    for _ in range(2):
        with manager.request((WeightPhase(BASE), WeightPhase(ONE))) as run:
            with run.phase(0, Net) as net:
                net(X)
            with run.phase(1, Net) as net:
                for index, block in enumerate(net.blocks):
                    inner, outer = block.inner.weight.clone(), block.outer.weight.clone()
                    name = f"blocks.{index}"
                    changed = index == 2 and mode != "dynamic"
                    assert torch.equal(inner, base[f"{name}.inner.weight"]) != changed
                    assert torch.equal(outer, base[f"{name}.outer.weight"])
