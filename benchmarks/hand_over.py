"""The device manager's own time on the host: hand-overs, switches, and rebinding, in Python.

The module has the full-size transformer's 4,186 tensors, small, and the device does nothing: its
streams take every order and carry none out. What is left is what the host does between blocks.

    python benchmarks/hand_over.py [--json FILE] [--repeats 5] [--profile]
"""

import argparse
import cProfile
import gc
import json
import platform
import pstats
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from entracte.residency import BASE, DeviceManager, Factors, Residency, WeightPhase, in_memory
from entracte.residency.backends.host import HostBackend, Instant
from entracte.residency.backends.protocol import (
    Direction,
    Event,
    HostMemory,
    Mark,
    MergeProgram,
    Task,
    Traffic,
)
from entracte.residency.formats import Expansion
from entracte.residency.merge import WeightMerge
from scaled_model import MERGED, Skeleton, skeleton_factors, skeleton_spec

PHASES = (WeightPhase(BASE, 4), WeightPhase(MERGED, 4))
MODES = {
    "resident": Residency("resident"),
    "fused, m = 48, k = 0": Residency("fused"),
    "fused, m = 0": Residency("fused", resident_blocks=0),
    "snapshot low-vram, m = 48": Residency("snapshot"),
}


class NullEvent:
    def synchronize(self) -> None:
        pass


class NullTask:
    def result(self) -> None:
        pass


class NullStream:
    """Takes orders."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._event = NullEvent()

    def wait(self, event: Event) -> None:
        pass

    def record(self) -> Event:
        return self._event

    def mark(self) -> Mark:
        return Instant(time.perf_counter())

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        self._traffic.count(direction, min(target.nbytes, source.nbytes))

    def merge(self, program: MergeProgram) -> None:
        self._traffic.merges += program is not None


class NullBackend(HostBackend):
    """A device that does nothing, with memory that is never given back."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "null"
        self.unified = False
        self.compute = NullStream(self.traffic)
        self.copies = NullStream(self.traffic)
        self.on_demand = NullStream(self.traffic)
        self.merges = NullStream(self.traffic)

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        with torch.inference_mode(False):
            return torch.zeros(nbytes, dtype=torch.uint8) if again is None else again

    def free(self, memory: Tensor) -> None:
        pass

    def allocate_host(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        return HostMemory(self.allocate(nbytes), pinned, name)

    def prepare_merges(
        self,
        merges: Sequence[WeightMerge],
        copies: Sequence[tuple[Tensor, Tensor]],
        expansions: Sequence[Expansion] = (),
    ) -> MergeProgram:
        return len(merges) + len(copies) + len(expansions)

    def read_ahead(self, task: Callable[[], None]) -> Task:
        task()
        return NullTask()


@contextmanager
def entered(manager: AbstractContextManager[Skeleton]) -> Iterator[tuple[Skeleton, float]]:
    """What a context manager gives, and the seconds that it took to enter."""
    start = time.perf_counter()
    with manager as given:
        yield given, time.perf_counter() - start


def hand_overs(blocks: Iterator[torch.nn.Module]) -> list[float]:
    """Seconds between asking for a block and having it, and those to end the sweep."""
    found, clock = [], time.perf_counter
    while True:
        start = clock()
        block = next(blocks, None)
        found.append(clock() - start)
        if block is None:
            return found


def measure(
    manager: DeviceManager, repeats: int, profile: cProfile.Profile | None
) -> dict[str, float]:
    """Medians over requests, the first of which is not counted."""
    everything: dict[str, list[list[float]]] = {"stage 1": [], "last": [], "stage 2": []}
    switches, begins = [], []
    for number in range(repeats + 1):
        gc.collect()
        start = time.perf_counter()
        with manager.request(PHASES) as run:
            begins.append(time.perf_counter() - start)
            for index, phase in enumerate(PHASES):
                with entered(run.phase(index, Skeleton)) as (module, seconds):
                    if index:
                        switches.append(seconds)
                    for sweep in range(phase.sweeps):
                        if profile and number:
                            profile.enable()
                        found = hand_overs(iter(module.transformer_blocks))
                        if profile:
                            profile.disable()
                        last = sweep + 1 == phase.sweeps
                        kind = "last" if last and not index else f"stage {index + 1}"
                        if number:
                            everything[kind].append(found)
    microseconds = {
        f"hand-over, {'last step of stage 1' if kind == 'last' else kind} us": 1e6
        * statistics.median(seconds for sweep in sweeps for seconds in sweep)
        for kind, sweeps in everything.items()
    }
    return microseconds | {
        "switch ms": 1e3 * statistics.median(switches[1:]),
        "first request's begin ms": 1e3 * begins[0],
        "later requests' begin ms": 1e3 * statistics.median(begins[1:]),
    }


def rebinding(manager: DeviceManager, repeats: int) -> dict[str, float]:
    """Milliseconds to bind all tensors of a component: to memory that comes again, and to other."""
    modules = manager._components["transformer"]._modules
    with manager.request(PHASES):
        bound = [each for (key, *_), each in modules._bound.items() if key.of in (0, BASE)]
        assert sum(len(each.tensors) for each in bound) == 4186
        here = [each.memory for each in bound]
        there = [torch.zeros(memory.nbytes, dtype=torch.uint8) for memory in here]
        again, other = [], []
        for _ in range(repeats + 1):
            for seconds, memories in ((other, there), (again, there), (other, here)):
                for each in bound:
                    each.unbind()
                gc.collect()
                start = time.perf_counter()
                for each, memory in zip(bound, memories, strict=True):
                    each.bind(memory)
                seconds.append(time.perf_counter() - start)
    return {
        "rebind again ms": 1e3 * statistics.median(again[1:]),
        "rebind other ms": 1e3 * statistics.median(other[2:]),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="say where hand-overs take time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec, factors = skeleton_spec(), skeleton_factors()

    def read_factors(_: str) -> dict[str, Factors]:
        return factors

    results: dict[str, dict[str, float]] = {}
    rebound: dict[str, float] = {}
    for mode, wanted in MODES.items():
        manager = DeviceManager([spec], NullBackend(), wanted, adapters=in_memory(read_factors))
        profile = cProfile.Profile() if options.profile else None
        results[mode] = measure(manager, options.repeats, profile)
        if mode == "resident":
            rebound = rebinding(manager, options.repeats)
        if profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    columns = list(results["resident"])
    print("| mode | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for mode, found in results.items():
        print(f"| {mode} | " + " | ".join(f"{found[name]:.2f}" for name in columns) + " |")
    again, other = rebound.values()
    print(
        f"\nRebinding 4,186 tensors: {again:.2f} ms to memory that comes again, "
        f"{other:.2f} ms to other memory"
    )
    if options.json:
        machine = {"machine": platform.platform(), "torch": torch.__version__}
        options.json.write_text(json.dumps(machine | rebound | {"modes": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
