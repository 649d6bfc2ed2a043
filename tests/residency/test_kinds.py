"""Every kind of change merges like its formula, and in every mode to the same bits."""

import gc
import weakref
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from entracte.errors import LoraError, ResidencyError
from entracte.residency import (
    BASE,
    Adapter,
    Backend,
    Change,
    ComponentSpec,
    DeviceManager,
    Dora,
    Factors,
    Full,
    Hadamard,
    Kronecker,
    MemoryAdapter,
    Place,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
)
from entracte.residency.backends.host import HostBackend
from entracte.residency.merge import merge
from entracte.residency.simulated import SimulatedAccelerator

from . import toy
from .toy import KINDS, make_manager, perform, read_kinds

ALL = WeightSet((Adapter("all", 0.8),))
STACK = WeightSet((Adapter("all", 1.0), Adapter("more", -0.5), Adapter("most", 0.3)))
PHASES = (WeightPhase(BASE, 2), WeightPhase(ALL, 2), WeightPhase(STACK))
MODES = [
    Residency("resident"),
    Residency("original"),
    Residency("original", resident_blocks=2, places={"net": "disk"}),
    Residency("snapshot"),
    Residency("snapshot", "aggressive", resident_blocks=3),
    Residency("fused"),
    Residency("fused", resident_blocks=2, merged_blocks=3, places={"net": "disk"}),
]
BACKENDS = {"host": HostBackend, "simulated": SimulatedAccelerator}

expected = cache(lambda: toy.expected(PHASES, read_kinds))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", MODES, ids=lambda each: f"{each.mode}-{each.resident_blocks}")
def test_every_mode_merges_every_kind_to_the_same_bits(wanted: Residency, backend: str) -> None:
    with make_manager(BACKENDS[backend](), wanted, adapters=KINDS) as manager:
        for _ in range(2):
            for phase, found, right in zip(
                PHASES, perform(manager, PHASES), expected(), strict=True
            ):
                assert torch.equal(found, right), phase


def test_the_stack_differs_from_the_base() -> None:
    plain, one, several = expected()
    assert not torch.equal(plain, one)
    assert not torch.equal(one, several)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("wanted", MODES, ids=lambda each: f"{each.mode}-{each.resident_blocks}")
def test_the_plan_counts_every_tensor(wanted: Residency) -> None:
    """The simulated accelerator refuses a byte more than was planned."""
    planned = make_manager(HostBackend(), wanted, adapters=KINDS).plan(PHASES)
    backend = SimulatedAccelerator(device_limit=planned.device_bytes)
    with make_manager(backend, wanted, adapters=KINDS) as manager:
        assert manager.plan(PHASES).device_bytes >= planned.device_bytes
        perform(manager, PHASES)


# Formulas, in float64.


def wide(change: Change, weight: Tensor, strength: float) -> Tensor:
    """Weight + change, spelled out."""
    t = {name: tensor.double() for name, tensor in change.tensors.items()}
    w = weight.double()
    match change:
        case Factors(scale=scale):
            return w + strength * scale * t["up"] @ t["down"]
        case Full(scale=scale):
            return w + strength * scale * t["diff"]
        case Hadamard(scale=scale):
            return w + strength * scale * (t["a1"] @ t["b1"]) * (t["a2"] @ t["b2"])
        case Kronecker(first=first, second=second, scale=scale):
            one, two = (
                matrix[0].double() if len(matrix) == 1 else matrix[0].double() @ matrix[1].double()
                for matrix in (first, second)
            )
            return w + strength * scale * torch.kron(one, two)
        case Dora(change=inner):
            directed = wide(inner, weight, 1.0)
            m = t["magnitude"]
            if m.ndim == 1 or m.shape == (weight.shape[0], 1):
                directed = directed / directed.norm(dim=1, keepdim=True) * m.reshape(-1, 1)
            else:
                directed = directed / directed.norm(dim=0, keepdim=True) * m
            return w + strength * (directed - w)


dtypes = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
sides = st.integers(1, 9)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Tensor, list[tuple[Change, float]]]:
    """A float32 weight, and a stack of changes of it with their strengths."""
    factors = [draw(st.integers(1, 3)) for _ in range(4)]
    rows, columns = factors[0] * factors[1], factors[2] * factors[3]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(draw(dtypes))

    def one(kind: str) -> Change:
        rank, scale = draw(st.integers(1, 4)), draw(st.sampled_from([1.0, 0.25, 2.0]))
        match kind:
            case "low rank":
                return Factors(random(rank, columns), random(rows, rank), scale)
            case "full":
                return Full(random(rows, columns), scale)
            case "hadamard":
                pair = random(rows, rank), random(rank, columns)
                return Hadamard(*pair, random(rows, 2), random(2, columns), scale)
            case "kronecker":
                first = (random(factors[0], factors[2]),)
                second = random(factors[1], rank), random(rank, factors[3])
                return Kronecker(first, second, scale)
        inner = one(draw(st.sampled_from(["low rank", "hadamard", "kronecker"])))
        assert not isinstance(inner, Full | Dora)
        shape = draw(st.sampled_from([(rows,), (rows, 1), (1, columns)]))
        return Dora(inner, random(*shape))

    kinds = st.sampled_from(["low rank", "full", "hadamard", "kronecker", "dora"])
    strengths = st.sampled_from([0.0, 1.0, -0.5, 0.3])
    stack = [(one(draw(kinds)), draw(strengths)) for _ in range(draw(st.integers(1, 3)))]
    return torch.randn(rows, columns, generator=generator), stack


@given(case=changes())
def test_stacks_add_up_what_every_change_does_to_the_base(
    case: tuple[Tensor, list[tuple[Change, float]]],
) -> None:
    weight, stack = case
    deltas = [wide(change, weight, strength) - weight.double() for change, strength in stack]
    right = weight.double() + sum(deltas)
    for change, _ in stack:
        assert change.shape == tuple(weight.shape)
    assert torch.allclose(merge(weight, stack).double(), right, rtol=1e-4, atol=1e-4)
    halved = merge(weight.bfloat16(), stack)
    assert halved.dtype == torch.bfloat16
    # The base itself is rounded, and so is what DoRA normalises by.
    size = float(right.abs().max()) + sum(float(each.abs().max()) for each in deltas)
    if not any(isinstance(change, Dora) for change, _ in stack):
        assert torch.allclose(halved.double(), right, rtol=0, atol=0.03 * max(size, 1.0))


@given(case=changes())
def test_strength_nought_is_the_base(case: tuple[Tensor, list[tuple[Change, float]]]) -> None:
    weight, stack = case
    unused = [(change, 0.0) for change, _ in stack]
    assert torch.equal(merge(weight.bfloat16(), unused), weight.bfloat16())


@given(case=changes())
def test_in_place_like_beside(case: tuple[Tensor, list[tuple[Change, float]]]) -> None:
    weight, stack = case
    right = merge(weight.bfloat16(), stack)
    place = weight.bfloat16()
    assert torch.equal(merge(place, stack, out=place), right)


# Rounding, of bfloat16 weights.


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_factors_multiply_in_the_dtype_of_the_file(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 16).bfloat16()
    down, up = torch.randn(4, 16).to(dtype), torch.randn(32, 4).to(dtype)
    delta = ((up * 0.3) @ down).bfloat16()
    assert torch.equal(merge(weight, [(Factors(down, up), 0.3)]), weight + delta)
    rounded = Factors(down.bfloat16(), up.bfloat16())
    assert not torch.equal(merge(weight, [(rounded, 0.3)]), weight + delta)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_further_product_is_added_with_one_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight = torch.randn(32, 16).bfloat16()
    pairs = [Factors(torch.randn(4, 16).to(dtype), torch.randn(32, 4).to(dtype)) for _ in range(4)]
    delta = (pairs[0].up * 0.7 @ pairs[0].down).bfloat16()
    for pair in pairs[1:]:
        delta = (delta.double() + 0.7 * pair.up.double() @ pair.down.double()).bfloat16()
    merged = merge(weight, [(pair, 0.7) for pair in pairs])
    assert torch.equal(merged, weight + delta)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_file_of_bytes_is_computed_in_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    weight = torch.randn(8, 8).to(dtype)
    pair = Factors(torch.randn(2, 8), torch.randn(8, 2))
    small = Factors(pair.down.to(torch.float8_e4m3fn), pair.up.to(torch.float8_e4m3fn))
    same = Factors(small.down.to(dtype), small.up.to(dtype))
    assert torch.equal(merge(weight, [(small, 0.5)]), merge(weight, [(same, 0.5)]))


# Dynamic mode.


def test_dynamic_applies_low_rank_and_full_changes_of_linears() -> None:
    def read(name: str) -> dict[str, Change]:
        norms = {"blocks.0.norm.weight"}
        return {
            key: change
            for key, change in read_kinds(name).items()
            if isinstance(change, Factors | Full) and key not in norms
        }

    manager = make_manager(SimulatedAccelerator(), Residency("dynamic"), adapters=memory(read))
    with torch.inference_mode():
        found = perform(manager, PHASES)
    for result, right in zip(found, toy.expected(PHASES, read), strict=True):
        assert (result - right).float().norm() < 0.05 * right.float().norm()


def memory(read):  # type: ignore[no-untyped-def]
    return lambda _, name: MemoryAdapter(read(name))


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("blocks.2.inner.weight", "is adapted by LoHa"),
        ("blocks.3.outer.weight", "is adapted by LoKr"),
        ("blocks.4.inner.weight", "is adapted by DoRA"),
        ("blocks.0.norm.weight", "belongs to a LayerNorm"),
    ],
)
def test_dynamic_refuses_the_others_before_any_work(parameter: str, reason: str) -> None:
    def read(name: str) -> dict[str, Change]:
        return {parameter: read_kinds(name)[parameter]}

    backend = HostBackend()
    manager = make_manager(backend, Residency("dynamic"), adapters=memory(read))
    with pytest.raises(ResidencyError, match=f"{parameter} {reason}: use mode fused, resident"):
        perform(manager, PHASES)
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)
    manager.configure(Residency("fused"))
    perform(manager, PHASES)


def test_a_change_of_another_shape_is_refused() -> None:
    read = {"one": {"first.bias": Full(torch.ones(9))}}.__getitem__
    manager = make_manager(HostBackend(), Residency(), adapters=memory(read))
    with pytest.raises(ResidencyError, match=r"first\.bias as if it were \[9\]; it is \[8\]"):
        manager.plan((WeightPhase(toy.ONE),))


# Adapters that come and go.


@pytest.mark.sampled(1)
@pytest.mark.parametrize("backend", ["simulated", pytest.param("host", marks=pytest.mark.slow)])
@pytest.mark.parametrize("wanted", MODES[::3], ids=lambda each: each.mode)
def test_adapters_that_are_replaced_leave_nothing_behind(wanted: Residency, backend: str) -> None:
    """Every request has an adapter of a new name; memory stays, and old adapters are let go."""
    opened: list[weakref.ref[MemoryAdapter]] = []

    class Tracked(MemoryAdapter):
        __slots__ = ("__weakref__",)

    def read(_: str, name: str) -> MemoryAdapter:
        adapter = Tracked(read_kinds(name))
        opened.append(weakref.ref(adapter))
        return adapter

    device: Backend = BACKENDS[backend]()
    manager = make_manager(device, wanted, adapters=read)
    taken = set()
    for number in range(4):
        weights = WeightSet((Adapter(f"one@{number}", 1.0),))
        phases = (WeightPhase(BASE), WeightPhase(weights))
        found = perform(manager, phases)
        if number in (0, 3):
            assert all(map(torch.equal, found, toy.expected(phases, read_kinds)))
        if number:
            taken.add((device.device_bytes, device.host_bytes))
    assert len(taken) == 1
    gc.collect()
    assert len(opened) == 4
    assert [each() is not None for each in opened] == [False] * 3 + [True]


@pytest.mark.parametrize("backend", ["simulated", pytest.param("host", marks=pytest.mark.slow)])
@pytest.mark.parametrize("wanted", MODES[::3], ids=lambda each: each.mode)
def test_an_adapter_that_cannot_be_read_fails_its_request_only(
    wanted: Residency, backend: str
) -> None:
    class Damaged(MemoryAdapter):
        def read(self, parameter: str, part: str, out: Tensor) -> None:
            if parameter == "blocks.3.outer.bias":
                raise LoraError(Path("damaged"), "it was changed while it was read")
            super().read(parameter, part, out)

    def read(_: str, name: str) -> MemoryAdapter:
        return (Damaged if name == "damaged" else MemoryAdapter)(read_kinds("all"))

    damaged = WeightSet((Adapter("damaged", 0.8),))
    with make_manager(BACKENDS[backend](), wanted, adapters=read) as manager:
        for _ in range(2):
            with pytest.raises(LoraError, match="changed while it was read"):
                perform(manager, (WeightPhase(BASE, 2), WeightPhase(damaged)))
            found = perform(manager, PHASES[:2])
            assert all(map(torch.equal, found, expected()[:2]))


# Components beside the adapted one.


@pytest.mark.sampled(2)
@torch.inference_mode()
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", ["resident", "snapshot", "disk"])
def test_another_component_is_lent_with_adapters(place: Place, backend: str) -> None:
    x = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
    base = toy.make_net(seed=1)
    source = TensorSource(base.state_dict())
    other = ComponentSpec("other", toy.build, {"base": source})
    changes = {"one": read_kinds("all"), "two": read_kinds("more")}

    def read(component: str, name: str) -> MemoryAdapter:
        return MemoryAdapter(changes[name] if component == "other" else read_kinds(name))

    def adapted(weights: WeightSet) -> Tensor:
        net = toy.make_net(seed=1)
        for name, parameter in net.named_parameters():
            stack = [(changes[each.name], each.strength) for each in weights.adapters]
            own = [(each[name], strength) for each, strength in stack if name in each]
            merge(base.get_parameter(name), own, out=parameter)
        return net(x)

    one = WeightSet((Adapter("one", 0.7),))
    both = WeightSet((Adapter("one", -0.5), Adapter("two", 1.0)))
    wanted = Residency("fused", places={"other": place})
    specs = [toy.make_spec(), other]
    phases = (WeightPhase(BASE), WeightPhase(ALL))
    with DeviceManager(specs, HostBackend(), wanted, adapters=read) as planning:
        most = max(
            planning.plan(phases, {} if weights is None else {"other": weights}).device_bytes
            for weights in (None, one, both)
        )
    device: Backend = (
        SimulatedAccelerator(device_limit=most) if backend == "simulated" else HostBackend(most)
    )
    with DeviceManager(specs, device, wanted, adapters=read) as manager:
        for weights in (None, one, both, None, one):
            with manager.request(phases, {} if weights is None else {"other": weights}) as run:
                with run.phase(0, toy.Net), manager.borrow("other", toy.Net) as net:
                    found = net(x).clone()
                with run.phase(1, toy.Net):
                    pass
            assert torch.equal(found, adapted(weights or BASE)), weights
        with manager.borrow("other", toy.Net) as net:
            assert torch.equal(net(x), adapted(BASE))
