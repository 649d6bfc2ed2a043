"""One evaluation of the full-size transformer, beside the floor of its shapes and diffusers'.

The floor is the bare matrix products and attentions, with nothing between them. The floor, our
ways to run the blocks, and diffusers' transformer, eager and with compiled blocks, take turns
within one run, on the same random weights.

    python benchmarks/step.py [--cases WORDS …] [--size medium] [--blocks N] [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusers_step import diffusers_step, sharing
from entracte.bench.compiled import compile_blocks, first_call, told
from entracte.bench.floor import Evaluation, Floor
from entracte.bench.stopwatch import in_turns
from entracte.checkpoints.published_sizes import published_listing
from entracte.machine.torch_device import pick_device
from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks
from entracte.sampling.tokens import VideoGrid, audio_spans

AUDIO_TOKENS = 126
DEPTH, SKIPPED = 48, 28
SEED, HD, HALF_HD = (
    VideoGrid(16, 8, 12, 24.0),
    VideoGrid(16, 32, 48, 24.0),
    VideoGrid(16, 16, 24, 24.0),
)
PEERS = ("diffusers", "diffusers compiled")


@dataclass(frozen=True)
class Case:
    name: str
    grid: VideoGrid
    guided: bool
    rows: int
    image: bool = False

    def passes(self, layers: int) -> tuple[Pass, ...]:
        if not self.guided:
            return (Pass(),)
        skipped = frozenset([skipped_block(layers)])
        return (
            Pass(),
            Pass(context=1),
            Pass(skip_video=skipped, skip_audio=skipped),
            Pass(isolated=True),
        )


CASES = (
    Case("1,536 tokens, 4 passes", SEED, True, 4),
    Case("1,536 tokens, 4 passes, one by one", SEED, True, 1),
    Case("1,536 tokens, 4 passes, image", SEED, True, 4, image=True),
    Case("6,144 tokens, 1 pass", HALF_HD, False, 1),
    Case("6,144 tokens, 4 passes", HALF_HD, True, 4),
    Case("24,576 tokens, 1 pass", HD, False, 1),
)


def skipped_block(layers: int) -> int:
    """At the full model's share of the depth."""
    return SKIPPED * layers // DEPTH


def config(size: str) -> Mapping[str, Any]:
    """The transformer's config: the published one, or a medium one for CPUs."""
    if size == "full":
        published: Mapping[str, Any] = published_listing()["metadata"]["config"]["transformer"]
        return published
    from entracte.synthetic.random_sizes import MEDIUM_TRANSFORMER

    return MEDIUM_TRANSFORMER


def build(
    device: torch.device, size: str, blocks: int | None
) -> tuple[Transformer, Mapping[str, Any]]:
    """On the device at once, in bfloat16, with small random weights; and its published config."""
    header = config(size)
    if blocks is not None:
        header = {**header, "num_layers": blocks}
    with torch.device("meta"):
        model = Transformer(TransformerConfig.from_header(header))
    model.load_state_dict(
        {
            name: torch.empty(each.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
            for name, each in model.state_dict().items()
        },
        assign=True,
    )
    return model.eval().requires_grad_(False), header


def inputs(model: Transformer, case: Case, device: torch.device) -> tuple[StreamInput, StreamInput]:
    torch.manual_seed(1)
    dtype = torch.bfloat16
    rotary = model.rotary(
        case.grid.spans().mean(-1), audio_spans(AUDIO_TOKENS).mean(-1), device, dtype
    )
    contexts = 2 if case.guided else 1

    def stream(tokens: int, width: int, image_tokens: int, table: Any) -> StreamInput:
        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        sigma = torch.tensor([0.7], device=device)
        runs, steps = [TokenRun(0, tokens, 0)], sigma
        if image_tokens:
            runs = [TokenRun(0, image_tokens, 0), TokenRun(image_tokens, tokens, 1)]
            steps = torch.tensor([0.0, 0.7], device=device)
        text = random(contexts, CONTEXT_TOKENS, width)
        return StreamInput(random(1, tokens, 128), steps, runs, sigma, text, table)

    image_tokens = case.grid.frame_tokens if case.image else 0
    return (
        stream(case.grid.tokens, model.config.video.context_dim, image_tokens, rotary[0]),
        stream(AUDIO_TOKENS, model.config.audio.context_dim, 0, rotary[1]),
    )


def ways(device: torch.device) -> dict[str, RunBlocks]:
    """Our ways to run the blocks on a device, by their columns."""
    if device.type != "cuda":
        return {"plain": run_blocks}
    from entracte.models.kernels.capture import GraphCapture
    from entracte.models.kernels.elementwise import FusedElementwise
    from entracte.models.kernels.graphs import AudioStream, CapturedBlocks

    return {
        "plain": run_blocks,
        "fused": BlockLoop(FusedElementwise()).run,
        "captured": CapturedBlocks(
            FusedElementwise(), GraphCapture(device), AudioStream(device)
        ).run,
    }


def measure(
    model: Transformer,
    peers: Mapping[str, Any],
    case: Case,
    device: torch.device,
    repeats: int,
) -> dict[str, Any]:
    """Seconds of every contender, which take turns, and what our ways have in common."""
    video, audio = inputs(model, case, device)
    passes = case.passes(model.config.layers)
    runs = ways(device)

    def step(way: str, rows: int = case.rows) -> list[Tensor]:
        made = model(video, audio, passes, rows_at_once=rows, run=runs[way])
        return [tensor for each in made for tensor in (each.video, each.audio)]

    contenders: dict[str, Callable[[], Any]] = {
        "floor": Floor(
            model.transformer_blocks,
            model.config,
            Evaluation(case.grid.tokens, AUDIO_TOKENS, passes, case.rows),
        )
    }
    facts: dict[str, Any] = {}
    for way in runs:
        contenders[way] = lambda way=way: step(way)
        # Kernels are compiled and chosen in the first, graphs captured in the second.
        facts[f"first two {way} steps"] = sum(first_call(contenders[way], device) for _ in range(2))
    plain = step("plain")
    *_, last = runs
    for way in runs:
        made = step(way)
        facts[f"{way}: same bits one by one"] = _same(made, step(way, rows=1))
        if way != "plain":
            facts[f"{way}: distance from plain"] = _distance(made, plain)
            facts[f"{way}: same bits as {last}"] = _same(made, step(last))
    skipped = skipped_block(model.config.layers) if case.guided else None
    for name, theirs in peers.items():
        print(f"{case.name}: the first step of {name}", file=sys.stderr, flush=True)
        contender = diffusers_step(theirs, video, audio, case.grid, skipped)
        try:
            facts[f"first {name} step"] = first_call(contender, device)
        except RuntimeError as error:
            facts[f"{name}: error"] = told(error)
        else:
            contenders[name] = contender
    seconds = in_turns(contenders, repeats, device)
    torch.compiler.reset()  # or the next shapes would count as recompilations, which are limited
    return {"seconds": seconds, **facts}


def _same(ours: list[Tensor], others: list[Tensor]) -> bool:
    return all(map(torch.equal, ours, others))


def _distance(ours: list[Tensor], others: list[Tensor]) -> float:
    """|ours - others| / |others|, the largest."""
    return max(
        ((a.float() - b.float()).norm() / b.float().norm()).item()
        for a, b in zip(ours, others, strict=True)
    )


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Seconds and, in parentheses, how many times the floor's, in Markdown."""
    columns = list(dict.fromkeys(name for each in results.values() for name in each["seconds"]))
    lines = [["step", *columns], ["---"] * (len(columns) + 1)]
    for case, found in results.items():
        seconds = found["seconds"]
        lines.append([case, f"{seconds['floor']:.3f}"])
        for name in columns[1:]:
            took = seconds.get(name)
            shown = "failed" if took is None else f"{took:.3f} ({took / seconds['floor']:.2f})"
            lines[-1].append(shown)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def profile(model: Transformer, case: Case, device: torch.device) -> list[tuple[str, int, float]]:
    """Kernels of a fused step by the time that they take: name, calls, milliseconds."""
    video, audio = inputs(model, case, device)
    passes, run = case.passes(model.config.layers), ways(device)["fused"]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        model(video, audio, passes, rows_at_once=case.rows, run=run)
        torch.cuda.synchronize()
    rows = [
        (each.key[:110], each.count, each.device_time_total / 1e3) for each in found.key_averages()
    ]
    return sorted(rows, key=lambda row: -row[2])[:40]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="kernels of each case")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="WORDS")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, metavar="PEER")
    parser.add_argument("--size", choices=("full", "medium"), default="full")
    parser.add_argument("--blocks", type=int, metavar="N", help="fewer fit smaller devices")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    model, header = build(device, options.size, options.blocks)
    peers = {name: sharing(model, header) for name in options.peers}
    if PEERS[1] in peers:
        compile_blocks(peers[PEERS[1]])
    results = {}
    for case in CASES:
        if case.name not in options.cases:
            continue
        results[case.name] = measure(model, peers, case, device, options.repeats)
        print(case.name, json.dumps(results[case.name]), flush=True)
        if options.profile:
            lines = [
                f"{milliseconds:9.3f} {count:6d} {name}"
                for name, count, milliseconds in profile(model, case, device)
            ]
            file = options.profile / f"{case.name.replace(' ', '_').replace(',', '')}.txt"
            file.write_text("\n".join(lines) + "\n")
    print(table(results))
    if options.json:
        on_gpu = device.type == "cuda"
        facts = {
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "torch": torch.__version__,
            "size": options.size,
            "blocks": model.config.layers,
            "cases": results,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
