"""Merging a LoRA into the full-size transformer on a GPU: the fused kernel, the plain expression.

Weights and factors are random; their sizes are those of the published checkpoint. Every block is
merged from memory of its own into one of two slots, as just-in-time merging does.

    python benchmarks/merge.py [--json FILE] [--blocks 48] [--rank 384] [--strength 1] [--tune]
"""

import argparse
import gzip
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entracte.residency.kernels.merge_table import MergeTiling
from entracte.residency.merge import Factors, WeightMerge, merge

# Triton is imported where it is used, so that --help works on a machine without it.
DEFAULT_TILING = MergeTiling()
SIZES = Path(__file__).parent.parent / "tests" / "data" / "ltx-2.3-full.json.gz"
MATRIX = re.compile(r".*\.transformer_blocks\.0\.(.+)\.weight")
BLOCKS = 48
TRIED = [
    DEFAULT_TILING,
    MergeTiling(stages=2),
    MergeTiling(stages=4),
    MergeTiling(group=4),
    MergeTiling(group=16),
    MergeTiling(warps=4),
    MergeTiling(columns=256),
    MergeTiling(columns=256, stages=4),
    MergeTiling(rows=256),
    MergeTiling(rows=256, warps=16),
    MergeTiling(rows=256, columns=256, warps=16),
    MergeTiling(depth=32, stages=5),
    MergeTiling(depth=128, stages=2),
]

Shape = tuple[int, int]


def block_shapes() -> list[Shape]:
    """[out, in] of every linear of a block."""
    tensors = json.loads(gzip.decompress(SIZES.read_bytes()))["tensors"]
    return [
        (shape[0], shape[1])
        for name, shape in tensors.items()
        if MATRIX.fullmatch(name) and len(shape) == 2
    ]


def matrices(shapes: Sequence[Shape], deviation: float) -> list[Tensor]:
    """Random bfloat16 matrices in one piece of memory, each aligned to 256 bytes."""
    sizes = [-(-rows * columns // 128) * 128 for rows, columns in shapes]
    memory = torch.empty(sum(sizes), device="cuda", dtype=torch.bfloat16).normal_(0, deviation)
    pieces = zip(memory.split(sizes), shapes, strict=True)
    return [piece[: rows * columns].view(rows, columns) for piece, (rows, columns) in pieces]


def build(blocks: int, rank: int, strength: float) -> list[list[WeightMerge]]:
    """The merges of every block."""
    shapes = block_shapes()
    ranks = [min(rank, *shape) for shape in shapes]
    slots = [matrices(shapes, 0.0) for _ in range(2)]
    merges = []
    for block in range(blocks):
        weights = matrices(shapes, 0.02)
        downs = matrices(
            [(r, columns) for r, (_, columns) in zip(ranks, shapes, strict=True)], 0.05
        )
        ups = matrices([(rows, r) for r, (rows, _) in zip(ranks, shapes, strict=True)], 0.05)
        tensors = zip(weights, slots[block % 2], downs, ups, strict=True)
        merges.append(
            [
                WeightMerge(weight, out, ((Factors(down, up), strength),))
                for weight, out, down, up in tensors
            ]
        )
    return merges


def timed(step: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds on the device."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds[1:])


def host_seconds(launch: Callable[[], object], repeats: int = 200) -> float:
    """Median seconds until a launch returns; the device keeps up at first, so few are timed."""
    seconds: list[float] = []
    for index in range(repeats):
        if index % 20 == 0:
            torch.cuda.synchronize()
        start = time.perf_counter()
        launch()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(merges: list[list[WeightMerge]], tiling: MergeTiling) -> dict[str, float]:
    device = torch.device("cuda", torch.cuda.current_device())
    from entracte.residency.kernels.lora_merge_triton import FusedMerges

    programs = [FusedMerges(each, device, tiling) for each in merges]

    def launch_all() -> None:
        for each in programs:
            each.launch()

    seconds = timed(launch_all)
    flop = moved = 0
    for each in (each for block in merges for each in block):
        factors = each.adapters[0][0]
        flop += 2 * each.weight.numel() * factors.down.shape[0]
        moved += 2 * each.weight.nbytes + factors.down.nbytes + factors.up.nbytes
    return {
        "one block s": timed(programs[0].launch),
        f"{len(merges)} blocks s": seconds,
        f"{BLOCKS} blocks s": seconds * BLOCKS / len(merges),
        "TFLOP/s": flop / seconds / 1e12,
        "TB/s": moved / seconds / 1e12,
        "host s per launch": host_seconds(programs[0].launch),
    }


def plain(merges: list[list[WeightMerge]]) -> None:
    for block in merges:
        for each in block:
            merge(each.weight, each.adapters, out=each.out)


def difference(merges: list[WeightMerge]) -> dict[str, float]:
    """Of one block's fused merge and the plain one, over all weights."""
    device = torch.device("cuda", torch.cuda.current_device())
    from entracte.residency.kernels.lora_merge_triton import FusedMerges

    FusedMerges(merges, device).launch()
    equal, largest, count = 0, 0.0, 0
    for each in merges:
        expected = merge(each.weight, each.adapters)
        equal += int((each.out == expected).sum())
        largest = max(largest, float((each.out.float() - expected.float()).abs().max()))
        count += expected.numel()
    return {"equal": equal / count, "largest difference": largest}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="in memory; 1 GB each")
    parser.add_argument("--rank", type=int, default=384)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--tune", action="store_true", help="measure other tilings too")
    options = parser.parse_args()

    from triton.runtime.errors import OutOfResources, PTXASError

    torch.manual_seed(0)
    merges = build(options.blocks, options.rank, options.strength)
    seconds = timed(lambda: plain(merges))
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rank": options.rank,
        "strength": options.strength,
        "fused against plain": difference(merges[0]),
        f"plain, {BLOCKS} blocks s": seconds * BLOCKS / len(merges),
        "fused": measure(merges, DEFAULT_TILING),
    }
    if options.tune:
        results["tilings"] = {}
        for tiling in TRIED:
            try:
                found: Any = measure(merges, tiling)
            except (OutOfResources, PTXASError) as error:
                found = str(error)
            results["tilings"][str(tiling)] = found
            print(tiling, found, flush=True)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
