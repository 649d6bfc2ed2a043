"""Every mode's memory and waiting at full size, simulated: no device and no weights are needed.

The device manager holds a scaled-down transformer on the simulated accelerator of the tests, whose
rates are scaled alike (`scaled_model.py`). A request is 30 steps of 4 passes at half resolution,
the upsampling (11 ms), 3 steps of 1 pass, and the decoding (256 ms). The second request is timed.

Blocks compute for as long as their linears take at 0.8 of the rate of matrix products. Attention,
text encoding, and what the other components move are left out. Mode `dynamic` is left out too: how
fast its narrow products run cannot be told from rates.

    python benchmarks/simulated.py [--card H200 ...] [--workload 768x512x121 ...] [--json FILE]
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from entracte.residency import Residency
from scaled_model import BLOCKS, PHASES, SCALE, Card, Simulation, full_size

# Measured on an H200: 4.3 of 4.8 TB/s, 790 of 989 TFLOP/s. The other cards' data sheets promise so
# much too, and are taken to keep as large a part of it. Their links are assumptions.
BANDWIDTH, FLOPS = 4.3 / 4.8, 790 / 989
GB = 1_000_000_000
CARDS = (
    Card("H200", 141 * GB, 4.3e12, 790e12, 55e9),
    Card("H100", 80 * GB, BANDWIDTH * 3.35e12, FLOPS * 989e12, 55e9),
    Card("RTX 5090", 32 * GB, BANDWIDTH * 1.79e12, FLOPS * 210e12, 55e9),
    Card("RTX 4090", 24 * GB, BANDWIDTH * 1.008e12, FLOPS * 165e12, 25e9),
)
ACTIVATIONS = 4 * GB  # of a card's memory, kept from the weights
WORKLOADS = {"768x512x121": (1536, 6144), "1536x1024x121": (6144, 24576)}

WANTED = (
    Residency("original"),
    Residency("snapshot"),
    Residency("snapshot", snapshot_policy="aggressive"),
    *(Residency("fused", merged_blocks=k) for k in (0, 12, 24, 48)),
    *(Residency("fused", resident_blocks=m) for m in (24, 0)),
    *(Residency("snapshot", resident_blocks=m) for m in (24, 0)),
    Residency("resident"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A mode on a card; without times where it does not fit.

    stall_s: the wait for weights in both loops, and before the first. switch_s: from the first
    loop's last work to the second one's first, less the upsampling. share: both of the request.
    """

    mode: str
    m: int
    k: int | None
    device_gb: float
    host_gb: float | None = None
    stall_s: float | None = None
    switch_s: float | None = None
    request_s: float | None = None
    share: float | None = None


def simulate(card: Card, wanted: Residency, tokens: tuple[int, int]) -> Row:
    simulation = Simulation(card, wanted, tokens)
    mode = "snapshot " + wanted.snapshot_policy if wanted.mode == "snapshot" else wanted.mode
    m = BLOCKS if wanted.resident_blocks is None else wanted.resident_blocks
    k = (wanted.merged_blocks or 0) if wanted.mode == "fused" else None
    plan = simulation.manager.plan(PHASES)
    needed = plan.device_bytes * SCALE
    if needed > card.memory - ACTIVATIONS:
        return Row(mode, m, k, needed / GB)
    simulation.request()
    accelerator = simulation.accelerator
    peaks = accelerator.peak_device_bytes, accelerator.peak_host_bytes
    timeline = simulation.request()
    stall, switch = sum(timeline.stalls), timeline.switch
    share = (stall + switch) / timeline.seconds
    device_gb, host_gb = (peak * SCALE / GB for peak in peaks)
    return Row(mode, m, k, device_gb, host_gb, stall, switch, timeline.seconds, share)


def most_that_fit(card: Card) -> Iterator[Residency]:
    """The most resident blocks that fused and snapshot can have, where not all fit."""
    block, rest = full_size()
    for mode, beside in (
        ("fused", 2 * rest.nbytes + BLOCKS * block.lora + rest.lora + 3 * block.nbytes),
        ("snapshot", 2 * rest.nbytes + 2 * block.nbytes + 2 * block.lora),
    ):
        m = int((card.memory - ACTIVATIONS - beside * 1.001) / block.nbytes)
        if 0 < m < BLOCKS and m not in (0, 24):
            yield Residency(mode, resident_blocks=m)


def table(by_workload: Mapping[str, list[Row]]) -> str:
    """Markdown: a line for every mode that fits, with the times of all workloads, then the rest."""
    heads = ["mode", "m", "k", "device GB", "host GB"]
    for workload in by_workload:
        heads += [f"{workload}: stall ms", "switch ms", "request s", "waiting %"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    misfits = []
    for rows in zip(*by_workload.values(), strict=True):
        row = rows[0]
        k = "" if row.k is None else row.k
        if row.host_gb is None:
            dials = f" {row.m}" + (f"/{k}" if row.k is not None else "")
            misfits.append(f"{row.mode}{dials} ({row.device_gb:.1f})")
            continue
        cells = [row.mode, row.m, k, f"{row.device_gb:.1f}", f"{row.host_gb:.1f}"]
        for each in rows:
            stall, switch, share = (
                max(0.0, value or 0.0) for value in (each.stall_s, each.switch_s, each.share)
            )
            cells += [f"{stall * 1e3:,.1f}", f"{switch * 1e3:,.1f}"]
            cells += [f"{each.request_s:,.2f}", f"{share * 100:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if misfits:
        lines += ["", "Do not fit (m/k, GB needed): " + ", ".join(misfits) + "."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [card.name for card in CARDS]
    parser.add_argument("--card", nargs="+", choices=names, default=names)
    parser.add_argument("--workload", nargs="+", choices=[*WORKLOADS], default=[*WORKLOADS])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for card in CARDS:
        if card.name not in options.card:
            continue
        found = {
            workload: [
                simulate(card, each, WORKLOADS[workload])
                for each in (*WANTED, *most_that_fit(card))
            ]
            for workload in options.workload
        }
        print(f"### {card.name}\n\n{table(found)}\n", flush=True)
        results[card.name] = {
            "card": asdict(card),
            "rows": {each: [asdict(row) for row in rows] for each, rows in found.items()},
        }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
