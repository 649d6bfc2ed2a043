"""How fast weights arrive on a GPU, alone and while it computes, and how much slower it computes.

    python benchmarks/link.py

Copies are of one block of the full-size transformer, from pinned memory, one after another.
"""

import statistics
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 773_000_000  # bytes
COPIES = 50
TOKENS, WIDTH, HEADS = 6144, 4096, 32


class Link:
    """Pinned memory and memory on the device, and a stream for copies between them."""

    def __init__(self) -> None:
        self._sources = [torch.empty(BLOCK, dtype=torch.uint8, pin_memory=True) for _ in range(4)]
        self._targets = [torch.empty(BLOCK, dtype=torch.uint8, device="cuda") for _ in range(2)]
        self._stream = torch.cuda.Stream()

    def enqueue(self, count: int) -> "list[torch.cuda.Event]":
        """Enqueue copies; returns an event before the first and one after each."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        with torch.cuda.stream(self._stream):
            events[0].record()
            for number, event in enumerate(events[1:]):
                source, target = self._sources[number % 4], self._targets[number % 2]
                target.copy_(source, non_blocking=True)
                event.record()
        return events


def intervals(events: "list[torch.cuda.Event]") -> list[float]:
    """Milliseconds between neighbours; waits for the device."""
    torch.cuda.synchronize()
    return [one.elapsed_time(other) for one, other in pairwise(events)]


def repeated(work: Callable[[], object], count: int) -> "list[torch.cuda.Event]":
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    return events


def report(name: str, copies: list[float], slower: float | None = None) -> None:
    first, middle, last = (sorted(copies)[int(len(copies) * at)] for at in (0.1, 0.5, 0.9))
    mean = statistics.fmean(copies)
    text = "" if slower is None else f"{slower - 1:.1%}"
    cells = [name, f"{BLOCK / mean / 1e6:.1f}", f"{first:.1f}", f"{middle:.1f}", f"{last:.1f}"]
    print("| " + " | ".join([*cells, f"{max(copies):.1f}", f"{mean / middle:.3f}", text]) + " |")


def computations() -> dict[str, Callable[[], object]]:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    x, up, down = random(TOKENS, WIDTH), random(4 * WIDTH, WIDTH), random(WIDTH, 4 * WIDTH)
    q = random(1, HEADS, TOKENS, WIDTH // HEADS)
    return {
        "products, 6,144 x 4,096 x 16,384": lambda: F.linear(F.linear(x, up), down),
        "attention, 32 heads of 128, 6,144 tokens": lambda: F.scaled_dot_product_attention(q, q, q),
        "additions in memory": lambda: x.add_(1.0),
    }


def main() -> None:
    print(torch.cuda.get_device_name(), torch.__version__)
    print("| beside | GB/s | copy ms, p10 | median | p90 | longest | mean / median | slower by |")
    print("|---" * 8 + "|")
    link = Link()
    link.enqueue(2)
    report("nothing", intervals(link.enqueue(COPIES)))
    for name, work in computations().items():
        alone = statistics.fmean(intervals(repeated(work, 20))[5:])
        count = int(COPIES * BLOCK / 50e9 * 1e3 / alone)  # as long as the copies take, at 50 GB/s
        alone = statistics.fmean(intervals(repeated(work, count)))
        copies = link.enqueue(COPIES + 5)
        beside = repeated(work, count)
        report(name, intervals(copies), statistics.fmean(intervals(beside)) / alone)


if __name__ == "__main__":
    main()
