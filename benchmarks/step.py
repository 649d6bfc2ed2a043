"""One evaluation of the full-size transformer on a GPU, beside the floor of its shapes.

The floor is the bare matrix products and attentions, with nothing between them. The floor, the
plain expressions and the fused kernels take turns within one run, on the same random weights.

    python benchmarks/step.py [--json FILE] [--profile FOLDER]
"""

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.models.kernels.elementwise import FusedElementwise
from entracte.models.kernels.graphs import AudioStream, CapturedBlocks, GraphCapture
from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks
from entracte.sampling.tokens import VideoGrid, audio_spans

SIZES = Path(__file__).parent.parent / "tests" / "data" / "ltx-2.3-full.json.gz"
DEVICE = torch.device("cuda")
AUDIO_TOKENS, TEXT_TOKENS = 126, 1024
SKIPPED = frozenset([28])
GUIDED = (
    Pass(),
    Pass(context=1),
    Pass(skip_video=SKIPPED, skip_audio=SKIPPED),
    Pass(isolated=True),
)
SEED, HD, HALF_HD = (
    VideoGrid(16, 8, 12, 24.0),
    VideoGrid(16, 32, 48, 24.0),
    VideoGrid(16, 16, 24, 24.0),
)


@dataclass(frozen=True)
class Case:
    name: str
    grid: VideoGrid
    passes: tuple[Pass, ...]
    rows: int
    image: bool = False


CASES = (
    Case("1,536 tokens, 4 passes", SEED, GUIDED, 4),
    Case("1,536 tokens, 4 passes, one by one", SEED, GUIDED, 1),
    Case("1,536 tokens, 4 passes, image", SEED, GUIDED, 4, image=True),
    Case("6,144 tokens, 1 pass", HALF_HD, GUIDED[:1], 1),
    Case("6,144 tokens, 4 passes", HALF_HD, GUIDED, 4),
    Case("24,576 tokens, 1 pass", HD, GUIDED[:1], 1),
)


def build() -> Transformer:
    """On the device at once, in bfloat16, with small random weights."""
    header = json.loads(gzip.decompress(SIZES.read_bytes()))["metadata"]["config"]["transformer"]
    config = TransformerConfig.from_header(header)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(
        {
            name: torch.empty(each.shape, dtype=torch.bfloat16, device="cuda").normal_(0, 0.02)
            for name, each in model.state_dict().items()
        },
        assign=True,
    )
    return model.eval().requires_grad_(False)


def inputs(model: Transformer, case: Case) -> tuple[StreamInput, StreamInput]:
    torch.manual_seed(1)
    device, dtype = DEVICE, torch.bfloat16
    rotary = model.rotary(
        case.grid.spans().mean(-1), audio_spans(AUDIO_TOKENS).mean(-1), device, dtype
    )
    contexts = 2 if len(case.passes) > 1 else 1

    def stream(tokens: int, width: int, image_tokens: int, table: Any) -> StreamInput:
        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        sigma = torch.tensor([0.7], device=device)
        runs, steps = [TokenRun(0, tokens, 0)], sigma
        if image_tokens:
            runs = [TokenRun(0, image_tokens, 0), TokenRun(image_tokens, tokens, 1)]
            steps = torch.tensor([0.0, 0.7], device=device)
        return StreamInput(
            random(1, tokens, 128), steps, runs, sigma, random(contexts, TEXT_TOKENS, width), table
        )

    image_tokens = case.grid.frame_tokens if case.image else 0
    return (
        stream(case.grid.tokens, model.config.video.width, image_tokens, rotary[0]),
        stream(AUDIO_TOKENS, model.config.audio.width, 0, rotary[1]),
    )


class Floor:
    """The products and attentions of all blocks, on inputs that stand still."""

    def __init__(self, model: Transformer, case: Case) -> None:
        self._model, self._case = model, case
        rows = len(case.passes)
        width, audio_width = model.config.video.width, model.config.audio.width

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, device="cuda").to(torch.bfloat16)

        self._x = random(rows, case.grid.tokens, width)
        self._y = random(rows, AUDIO_TOKENS, audio_width)
        contexts = 2 if rows > 1 else 1
        self._text = random(contexts, TEXT_TOKENS, width)
        self._audio_text = random(contexts, TEXT_TOKENS, audio_width)

    def __call__(self) -> None:
        rows = len(self._case.passes)
        for index, block in enumerate(self._model.transformer_blocks):
            # The skipping pass joins its twin at the block that it skips.
            count = rows if rows == 1 or index >= min(SKIPPED) else rows - 1
            for first in range(0, count, self._case.rows):
                self._block(block, min(self._case.rows, count - first), index in SKIPPED)
            for attention, text in (
                (block.attn2, self._text),
                (block.audio_attn2, self._audio_text),
            ):
                attention.to_k(text), attention.to_v(text)

    def _block(self, block: Any, rows: int, skipping: bool) -> None:
        x, y = self._x[:rows], self._y[:rows]
        text, audio_text = (
            each[:1].expand(rows, -1, -1) for each in (self._text, self._audio_text)
        )
        for attention, asking, told in (
            (block.attn1, x, x),
            (block.audio_attn1, y, y),
            (block.attn2, x, text),
            (block.audio_attn2, y, audio_text),
            (block.audio_to_video_attn, x, y),
            (block.video_to_audio_attn, y, x),
        ):
            q = attention.to_q(asking)
            if told is text or told is audio_text:
                k = v = told.unflatten(-1, (attention.heads, -1))
            else:
                k, v = attention.split(attention.to_k(told)), attention.split(attention.to_v(told))
            attention.to_gate_logits(asking)
            kept = rows - 1 if skipping and told is asking and rows > 1 else rows
            out = F.scaled_dot_product_attention(
                *(each[:kept].transpose(1, 2) for each in (attention.split(q), k, v))
            )
            attention.to_out[0](q)
            del out
        for feed_forward, each in ((block.ff, x), (block.audio_ff, y)):
            feed_forward.net[2](feed_forward.net[0](each))


def timed(steps: dict[str, Callable[[], Any]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each, which take turns; by the device's own clock."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            if turn:
                found[name].append(start.elapsed_time(end) / 1e3)
    return {name: statistics.median(each) for name, each in found.items()}


def measure(model: Transformer, case: Case) -> dict[str, Any]:
    video, audio = inputs(model, case)
    fused = BlockLoop(FusedElementwise()).run

    def step(run: RunBlocks, rows: int = case.rows) -> list[Tensor]:
        made = model(video, audio, case.passes, rows_at_once=rows, run=run)
        return [tensor for each in made for tensor in (each.video, each.audio)]

    ours, theirs = step(fused), step(run_blocks)
    differences = [
        ((a.float() - b.float()).norm() / b.float().norm()).item()
        for a, b in zip(ours, theirs, strict=True)
    ]
    one_by_one = step(fused, rows=1)
    graphs = CapturedBlocks(FusedElementwise(), GraphCapture(DEVICE), AudioStream(DEVICE)).run
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(2):  # compiles and chooses kernels; captures
        step(graphs)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    replayed = step(graphs)
    seconds = timed(
        {
            "floor": Floor(model, case),
            "plain": lambda: step(run_blocks),
            "fused": lambda: step(fused),
            "captured": lambda: step(graphs),
        }
    )
    return {
        **seconds,
        **{f"{name} / floor": seconds[name] / seconds["floor"] for name in ("fused", "captured")},
        "distance from plain": max(differences),
        "first two captured steps": first,
        "same bits captured": all(map(torch.equal, ours, replayed)),
        "same bits one by one": all(map(torch.equal, ours, one_by_one)),
        "plain: same bits one by one": all(map(torch.equal, theirs, step(run_blocks, rows=1))),
    }


def profile(model: Transformer, case: Case) -> list[tuple[str, int, float]]:
    """Kernels by the time that they take: name, calls, milliseconds."""
    video, audio = inputs(model, case)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        model(
            video,
            audio,
            case.passes,
            rows_at_once=case.rows,
            run=BlockLoop(FusedElementwise()).run,
        )
        torch.cuda.synchronize()
    rows = [
        (each.key[:110], each.count, each.device_time_total / 1e3) for each in found.key_averages()
    ]
    return sorted(rows, key=lambda row: -row[2])[:40]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--profile", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    for case in CASES:
        results[case.name] = measure(model, case)
        print(case.name, json.dumps(results[case.name]), flush=True)
        if options.profile:
            lines = [
                f"{milliseconds:9.3f} {count:6d} {name}"
                for name, count, milliseconds in profile(model, case)
            ]
            file = options.profile / f"{case.name.replace(' ', '_').replace(',', '')}.txt"
            file.write_text("\n".join(lines) + "\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
