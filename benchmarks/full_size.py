"""The full-size transformer with random weights on a GPU: time and memory of a step.

The sizes are read from a checkpoint's header, or from the list that the tests keep of the published
one, so no weights are needed.

    python benchmarks/full_size.py [--json FILE] [--tokens 1536 6144]
"""

import argparse
import gzip
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.residency.merge import Factors, merge
from entracte.sampling.tokens import VideoGrid, audio_spans

SIZES = Path(__file__).parent.parent / "tests" / "data" / "ltx-2.3-full.json.gz"
GRIDS = {
    1536: VideoGrid(16, 8, 12, 24.0),  # 768 x 512 at half size, 121 frames
    6144: VideoGrid(16, 16, 24, 24.0),  # 768 x 512; or 1536 x 1024 at half size
    24576: VideoGrid(16, 32, 48, 24.0),  # 1536 x 1024
}
AUDIO_TOKENS = 126
SKIPPED = frozenset([28])
PASSES = (
    Pass(),
    Pass(context=1),
    Pass(skip_video=SKIPPED, skip_audio=SKIPPED),
    Pass(isolated=True),
)


def build() -> Transformer:
    """On the device at once, in bfloat16, with small random weights."""
    config = json.loads(gzip.decompress(SIZES.read_bytes()))["metadata"]["config"]["transformer"]
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = Transformer(TransformerConfig.from_header(config))
        torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad_(False).normal_(0, 0.02)
    return model.eval()


def stream(tokens: int, width: int, rotary: Any) -> StreamInput:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    sigma = torch.tensor([0.7], device="cuda")
    runs = [TokenRun(0, tokens, 0)]
    return StreamInput(random(1, tokens, 128), sigma, runs, sigma, random(2, 1024, width), rotary)


def timed(step: Any, repeats: int = 5) -> float:
    """Median seconds, the device's work included."""
    seconds = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def measure_steps(model: Transformer, tokens: int) -> dict[str, float]:
    grid = GRIDS[tokens]
    rotary = model.rotary(
        grid.spans().mean(-1),
        audio_spans(AUDIO_TOKENS).mean(-1),
        torch.device("cuda"),
        torch.bfloat16,
    )
    video = stream(tokens, model.config.video.width, rotary[0])
    audio = stream(AUDIO_TOKENS, model.config.audio.width, rotary[1])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    alone = [replace(each, contexts=each.contexts[:1]) for each in (video, audio)]
    found = {"one pass s": timed(lambda: model(*alone, PASSES[:1]))}
    for rows in (1, 4):
        found[f"four passes, {rows} at once s"] = timed(
            lambda rows=rows: model(video, audio, PASSES, rows_at_once=rows)
        )
    found["activations GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    return found


def measure_merge(model: Transformer, rank: int = 384) -> float:
    """Seconds to merge a LoRA over every linear of one block, into new weights."""
    block = model.transformer_blocks[0]
    pairs = []
    for module in block.modules():
        if isinstance(module, nn.Linear):
            r = min(rank, *module.weight.shape)
            down = torch.randn(r, module.in_features, device="cuda", dtype=torch.bfloat16)
            up = torch.randn(module.out_features, r, device="cuda", dtype=torch.bfloat16)
            pairs.append((module.weight, Factors(down, up)))
    return timed(lambda: [merge(weight, [(factors, 1.0)]) for weight, factors in pairs])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1536, 6144])
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "weights GB": sum(p.nbytes for p in model.parameters()) / 1e9,
        "merge of one block s": measure_merge(model),
    }
    for tokens in options.tokens:
        results[f"{tokens} video tokens"] = measure_steps(model, tokens)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
