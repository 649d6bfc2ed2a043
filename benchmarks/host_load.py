"""What a host at full load costs: steps of the transformer beside processes that keep cores busy.

A GPU that waits for a busy host to launch kernels takes longer; one that replays captured graphs
should not. For every way to run the blocks, steps without and with the load take turns, timed by
the host's clock; random weights.

    python benchmarks/host_load.py [--cases WORDS …] [--blocks N] [--processes N] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entracte.machine.torch_device import pick_device
from entracte.models.transformer import RunBlocks, Transformer
from step import CASES, Case, build, inputs, ways

# Says a line once it is busy.
BUSY = "print(flush=True)\nwhile True: pass"


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep as many cores busy as there are processes."""
    command = [sys.executable, "-S", "-c", BUSY]
    busy = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for each in busy:
            each.stdout.readline()
        yield
    finally:
        for each in busy:
            each.kill()
            each.communicate()


def timed(step: Callable[[], Any], steps: int, device: torch.device) -> list[float]:
    """Seconds of each of so many steps; the host waits for each, as it does between two steps."""
    found = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begin)
    return found


def measure(
    model: Transformer, case: Case, run: RunBlocks, device: torch.device, options: Any
) -> dict[str, Any]:
    """Medians in seconds of a step without and with the load."""
    video, audio = inputs(model, case, device)
    passes = case.passes(model.config.layers)

    def step() -> list[Tensor]:
        made = model(video, audio, passes, rows_at_once=case.rows, run=run)
        return [tensor for each in made for tensor in (each.video, each.audio)]

    for _ in range(
        2
    ):  # kernels are compiled and chosen in the first, graphs captured in the second
        expected = step()
    idle, loaded = [], []
    for _ in range(options.turns):
        timed(step, 1, device)
        idle += timed(step, options.steps, device)
        with load(options.processes):
            loaded += timed(step, options.steps, device)
    return {
        "idle": statistics.median(idle),
        "loaded": statistics.median(loaded),
        "same bits": all(map(torch.equal, step(), expected)),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [case.name for case in CASES]
    defaults = ["1,536 tokens, 4 passes", "6,144 tokens, 1 pass"]
    parser.add_argument("--cases", nargs="+", choices=names, default=defaults, metavar="WORDS")
    parser.add_argument("--size", choices=("full", "medium"), default="full")
    parser.add_argument("--blocks", type=int, metavar="N", help="fewer fit smaller devices")
    cores = os.cpu_count() or 1
    parser.add_argument("--processes", type=int, default=2 * cores, help="default: two a core")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="in a turn, in either state")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    model, _ = build(device, options.size, options.blocks)
    results: dict[str, dict[str, Any]] = {}
    blocks = len(model.transformer_blocks)
    print(f"{options.processes} busy processes on {cores} cores, {blocks} blocks\n")
    print("| step | way | idle s | busy s | ratio |\n|---|---|---|---|---|", flush=True)
    for case in CASES:
        if case.name not in options.cases:
            continue
        results[case.name] = {}
        for way, run in ways(device).items():
            found = results[case.name][way] = measure(model, case, run, device, options)
            idle, loaded = found["idle"], found["loaded"]
            times = f"{idle:.4f} | {loaded:.4f} | {loaded / idle:.3f}"
            print(f"| {case.name} | {way} | {times} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
