"""Weights over two GPUs: place `peer` beside `resident`, and one pinned host copy for both.

Each rank sweeps over the same blocks by itself, without exchanging anything else.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor, nn

from entracte.residency import (
    BASE,
    Adapter,
    ComponentSpec,
    DeviceManager,
    Factors,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
    in_memory,
    open_backend,
)

RANKS, RANK_OF_ADAPTER = 2, 16
PHASES = (WeightPhase(BASE, 8), WeightPhase(WeightSet((Adapter("adapter", 1.0),)), 4))
PEER = {"net": "peer"}
WAYS = {
    "resident": Residency("resident"),
    "resident, peer": Residency("resident", places=PEER),
    "fused": Residency("fused"),
    "fused, peer": Residency("fused", places=PEER),
    "snapshot": Residency("snapshot"),
}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        shapes = [(width, 4 * width), (4 * width, width)] * 3
        self.linears = nn.ModuleList(nn.Linear(*shape, bias=False) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        for inner, outer in zip(self.linears[::2], self.linears[1::2], strict=True):
            x = x + outer(torch.relu(inner(x)))
        return x


class Net(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


class PipePeers:
    """One of two ranks; see `Peers`."""

    size = RANKS

    def __init__(self, rank: int, pipe: Connection) -> None:
        self.rank = rank
        self._pipe = pipe

    def exchange(self, value: object) -> list[object]:
        self._pipe.send(value)
        other = self._pipe.recv()
        return [other, value] if self.rank else [value, other]

    def check(self) -> None:
        pass


def spec_of(width: int, blocks: int) -> tuple[ComponentSpec, dict[str, Factors]]:
    """A component of random weights, and an adapter of all of its linears."""

    def build() -> Net:
        with torch.device("meta"):
            return Net(width, blocks).bfloat16()

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).bfloat16()

    numbers = random(4 * width * width, scale=0.01)
    parameters = dict(build().named_parameters())
    tensors = {name: numbers[: each.numel()].view(each.shape) for name, each in parameters.items()}
    factors = {
        name: Factors(
            random(RANK_OF_ADAPTER, each.shape[1], scale=0.02),
            random(each.shape[0], RANK_OF_ADAPTER, scale=0.02),
        )
        for name, each in parameters.items()
        if name.endswith("weight")
    }
    return ComponentSpec("net", build, {"base": TensorSource(tensors)}, "blocks"), factors


@torch.inference_mode()
def request(manager: DeviceManager, x: Tensor) -> tuple[list[Tensor], list[float]]:
    """What every phase makes, and the milliseconds of a sweep in it, but for the first."""
    results, times = [], []
    with manager.request(PHASES) as run:
        for index, phase in enumerate(PHASES):
            with run.phase(index, Net) as net:
                y = net(x)
                manager.backend.synchronize()
                start = time.perf_counter()
                for _ in range(phase.sweeps - 1):
                    y = net(x)
                manager.backend.synchronize()
                times.append((time.perf_counter() - start) / (phase.sweeps - 1) * 1e3)
            results.append(y.clone())
    return results, times


def of_rank(rank: int, options: argparse.Namespace, pipe: Connection, barrier: Barrier) -> None:
    """Measure every way, and print a row of each; the ranks begin each request together."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    spec, factors = spec_of(options.width, options.blocks)
    x = torch.randn(options.rows, options.width, generator=torch.Generator().manual_seed(1))
    x = x.bfloat16().to(device)
    peers, right = PipePeers(rank, pipe), None
    for name in options.ways:
        backend = open_backend(device, peers)
        adapters = in_memory({"adapter": factors}.__getitem__)
        with DeviceManager([spec], backend, WAYS[name], adapters=adapters) as manager:
            for number in range(options.requests):
                barrier.wait()
                start = time.perf_counter()
                results, times = request(manager, x)
                seconds = time.perf_counter() - start
                right = right or results
                same = all(map(torch.equal, results, right))
                held = sum(row.nbytes for row in manager.residency() if row.where == "device")
                print(
                    f"| {name} | {rank} | {number + 1} | {seconds:.2f} | {times[0]:.2f} | "
                    f"{times[1]:.2f} | {held / 1e9:.2f} | {'yes' if same else 'NO'} |",
                    flush=True,
                )
            barrier.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=12, help="of 805 MB at the default width")
    parser.add_argument("--rows", type=int, default=3072, help="tokens of a sweep")
    parser.add_argument("--requests", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args(arguments)
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| way | rank | request | s | ms a sweep, base | merged | GB on the device | same bits |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    spawning = multiprocessing.get_context("spawn")
    pipes, barrier = spawning.Pipe(), spawning.Barrier(RANKS)
    ranks = [
        spawning.Process(target=of_rank, args=(rank, options, pipes[rank], barrier))
        for rank in range(RANKS)
    ]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()


if __name__ == "__main__":
    main()
