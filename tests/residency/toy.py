"""A small module with blocks and adapters, on which the device manager is tested."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from entracte.residency import (
    BASE,
    Adapter,
    Backend,
    Change,
    Changes,
    ComponentSpec,
    DeviceManager,
    Dora,
    Factors,
    Full,
    Hadamard,
    Kronecker,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
    in_memory,
)

BLOCKS = 7
ONE = WeightSet((Adapter("one", 1.0),))
TWO = WeightSet((Adapter("one", 0.5), Adapter("other", 1.0)))
PHASES = (WeightPhase(BASE, 3), WeightPhase(ONE, 2))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.relu(self.inner(self.norm(x))))


class Net(nn.Module):
    def __init__(self, blocks: int = BLOCKS, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.last = nn.Linear(width, width)
        self.register_buffer("shift", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.shift
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def make_net(seed: int = 0, blocks: int = BLOCKS) -> Net:
    """With weights, in bfloat16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(blocks).bfloat16().requires_grad_(False)


def build(blocks: int = BLOCKS) -> Net:
    """Without weights."""
    with torch.device("meta"):
        return Net(blocks).bfloat16()


@functools.cache
def _weights(blocks: int) -> dict[str, Tensor]:
    """Those of `make_net`, whose initialisation takes longer than most requests here."""
    return make_net(blocks=blocks).state_dict()


@functools.cache
def _linears() -> dict[str, nn.Linear]:
    modules = build().named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def read_factors(name: str) -> Mapping[str, Factors]:
    """An adapter of every linear; other names are other adapters."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    return {
        f"{module_name}.weight": Factors(
            random(2, module.in_features), random(module.out_features, 2) * 0.3
        )
        for module_name, module in _linears().items()
    }


def read_kinds(name: str) -> dict[str, Change]:
    """An adapter with changes of every kind and dtype, of weights, biases and norms."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.4).to(dtype)

    half, single = torch.float16, torch.float32
    hadamard = Hadamard(random(16, 3), random(3, 8), random(16, 2), random(2, 8), 0.7)
    return {
        "first.weight": Full(random(8, 8, dtype=half), 0.5),
        "first.bias": Full(random(8, dtype=single)),
        "last.weight": Kronecker((random(2, 4),), (random(4, 1), random(1, 2)), 0.5),
        "blocks.0.inner.weight": Factors(random(2, 8), random(16, 2)),
        "blocks.0.inner.bias": Full(random(16), 0.25),
        "blocks.0.norm.weight": Full(random(8)),
        "blocks.1.inner.weight": Factors(random(3, 8, dtype=half), random(16, 3, dtype=half), 1.5),
        "blocks.1.outer.weight": Factors(random(3, 16, dtype=single), random(8, 3, dtype=single)),
        "blocks.2.inner.weight": hadamard,
        "blocks.3.outer.weight": Kronecker((random(4, 2), random(2, 4)), (random(2, 4),)),
        "blocks.3.outer.bias": Full(random(8)),
        "blocks.4.inner.weight": Dora(Factors(random(2, 8), random(16, 2)), random(16, 1)),
        "blocks.4.outer.weight": Dora(Factors(random(2, 16), random(8, 2), 2.0), random(1, 16)),
        "blocks.5.inner.weight": Dora(hadamard, random(16, dtype=single)),
        "blocks.5.outer.weight": Dora(Kronecker((random(2, 2),), (random(4, 8),)), random(8)),
    }


ADAPTERS = in_memory(read_factors)
KINDS = in_memory(read_kinds)


def make_spec(blocks: int = BLOCKS) -> ComponentSpec:
    source = TensorSource({name: each.clone() for name, each in _weights(blocks).items()})
    return ComponentSpec("net", lambda: build(blocks), {"base": source}, "blocks")


def make_manager(backend: Backend, wanted: Residency, **options: object) -> DeviceManager:
    return DeviceManager([make_spec()], backend, wanted, **({"adapters": ADAPTERS} | options))


@torch.inference_mode()
def perform(
    manager: DeviceManager, phases: tuple[WeightPhase, ...] = PHASES, x: Tensor | None = None
) -> list[Tensor]:
    """One request: the sweeps of every phase, each over the result of the one before."""
    results = []
    with manager.request(phases) as run:
        for index, phase in enumerate(phases):
            y = torch.linspace(-1, 1, 16).view(2, 8).bfloat16() if x is None else x
            with run.phase(index, Net) as net:
                for _ in range(phase.sweeps):
                    y = net(y)
            results.append(y.clone())
    return results


@torch.inference_mode()
def expected(
    phases: tuple[WeightPhase, ...] = PHASES,
    read: Callable[[str], Changes] = read_factors,
    net: Callable[[], Net] = make_net,
) -> list[Tensor]:
    """What `perform` must give, by plain modules merged by hand."""
    from entracte.residency.merge import merge

    results = []
    for phase in phases:
        merged, plain = net(), net()
        adapters = [(read(each.name), each.strength) for each in phase.weights.adapters]
        for name, parameter in merged.named_parameters():
            changes = [(each[name], by) for each, by in adapters if name in each]
            merge(plain.get_parameter(name), changes, out=parameter)
        y = torch.linspace(-1, 1, 16).view(2, 8).bfloat16()
        for _ in range(phase.sweeps):
            y = merged(y)
        results.append(y)
    return results
