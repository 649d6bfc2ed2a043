"""Our transformer beside diffusers' on the same weights, and beside the floor under both.

The floor is the bare matrix products and attentions of the same shapes: no norm, no modulation, no
activation; see `Floor`. All three take turns within one run, so that their ratios hold whatever the
machine is doing; the absolute times hold for this machine only.

    python benchmarks/transformer.py [--json FILE] [--repeats N] [--threads N]
"""

import argparse
import json
import logging
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffusers_step import diffusers_step
from entracte.bench.floor import Evaluation, Floor
from entracte.checkpoints.diffusers_configs import transformer_config
from entracte.checkpoints.diffusers_names import transformer_to_published
from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.sampling.tokens import VideoGrid, audio_spans

BLOCKS, HEADS, HEAD_DIM, AUDIO_HEAD_DIM = 8, 8, 64, 32
GRID = VideoGrid(frames=6, height=16, width=16, frame_rate=24.0)  # 1,536 tokens
AUDIO_TOKENS = 126
TEXT_TOKENS = 1024
# At the same share of the depth as in the full model: 28 of 48.
SKIPPED_BLOCK = 5

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = (
    Pass(),
    Pass(context=1),
    Pass(skip_video=frozenset([SKIPPED_BLOCK]), skip_audio=frozenset([SKIPPED_BLOCK])),
    Pass(isolated=True),
)


@dataclass(frozen=True)
class Inputs:
    """One step's inputs, for two prompts."""

    video: Tensor
    audio: Tensor
    video_contexts: Tensor
    audio_contexts: Tensor
    image_tokens: int  # tokens with timestep 0, at the front


def make_models(dtype: torch.dtype) -> tuple[LTX2VideoTransformer3DModel, Transformer]:
    """Diffusers' model with random weights, and ours on the very same tensors."""
    width, audio_width = HEADS * HEAD_DIM, HEADS * AUDIO_HEAD_DIM
    theirs = LTX2VideoTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        cross_attention_dim=width,
        audio_num_attention_heads=HEADS,
        audio_attention_head_dim=AUDIO_HEAD_DIM,
        audio_cross_attention_dim=audio_width,
        num_layers=BLOCKS,
        gated_attn=True,
        audio_gated_attn=True,
        cross_attn_mod=True,
        audio_cross_attn_mod=True,
        use_prompt_embeddings=False,
        perturbed_attn=True,
        rope_type="split",
    )
    theirs = theirs.to(dtype).eval().requires_grad_(False)
    with torch.device("meta"):
        ours = Transformer(TransformerConfig.from_header(transformer_config(theirs.config)))
    weights = {transformer_to_published(n): t for n, t in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    return theirs, ours.eval().requires_grad_(False)


def make_inputs(dtype: torch.dtype, image: bool) -> Inputs:
    width, audio_width = HEADS * HEAD_DIM, HEADS * AUDIO_HEAD_DIM
    return Inputs(
        torch.randn(1, GRID.tokens, 128).to(dtype),
        torch.randn(1, AUDIO_TOKENS, 128).to(dtype),
        torch.randn(2, TEXT_TOKENS, width).to(dtype),
        torch.randn(2, TEXT_TOKENS, audio_width).to(dtype),
        GRID.frame_tokens if image else 0,
    )


def stream_inputs(
    model: Transformer, given: Inputs, guided: bool
) -> tuple[StreamInput, StreamInput]:
    """What a step of ours is given; the rotary tables are made beforehand, as in the engine."""
    rotary = model.rotary(
        GRID.spans().mean(-1),
        audio_spans(AUDIO_TOKENS).mean(-1),
        torch.device("cpu"),
        given.video.dtype,
    )
    sigma = torch.tensor([0.7])
    runs, timesteps = [TokenRun(0, GRID.tokens, 0)], sigma
    if given.image_tokens:
        runs = [TokenRun(0, given.image_tokens, 0), TokenRun(given.image_tokens, GRID.tokens, 1)]
        timesteps = torch.tensor([0.0, 0.7])
    contexts = slice(0, 2 if guided else 1)
    video = StreamInput(
        given.video, timesteps, runs, sigma, given.video_contexts[contexts], rotary[0]
    )
    audio = StreamInput(
        given.audio,
        sigma,
        [TokenRun(0, AUDIO_TOKENS, 0)],
        sigma,
        given.audio_contexts[contexts],
        rotary[1],
    )
    return video, audio


def run_ours(model: Transformer, given: Inputs, guided: bool, rows: int) -> Callable[[], Any]:
    """One step of ours."""
    video, audio = stream_inputs(model, given, guided)
    passes = PASSES if guided else PASSES[:1]
    return lambda: model(video, audio, passes, rows_at_once=rows)


def run_theirs(
    theirs: LTX2VideoTransformer3DModel, ours: Transformer, given: Inputs, guided: bool
) -> Callable[[], Any]:
    """One step of diffusers'."""
    video, audio = stream_inputs(ours, given, guided)
    return diffusers_step(theirs, video, audio, GRID, SKIPPED_BLOCK if guided else None)


def measure(dtype_name: str, image: bool, guided: bool, repeats: int) -> dict[str, Any]:
    """Median seconds of each contender, taking turns."""
    torch.manual_seed(0)
    dtype = DTYPES[dtype_name]
    theirs, ours = make_models(dtype)
    given = make_inputs(dtype, image)
    contenders = {
        "floor": Floor(
            ours.transformer_blocks,
            ours.config,
            Evaluation(GRID.tokens, AUDIO_TOKENS, PASSES if guided else PASSES[:1], 1),
        ),
        "diffusers": run_theirs(theirs, ours, given, guided),
        "entracte": run_ours(ours, given, guided, rows=1),
    }
    if guided:
        contenders["entracte, one batch"] = run_ours(ours, given, guided, rows=len(PASSES))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        for step in contenders.values():
            step()
        for _ in range(repeats):
            for name, step in contenders.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "dtype": dtype_name,
        "task": "image-to-video" if image else "text-to-video",
        "passes": len(PASSES) if guided else 1,
        "seconds": medians,
        "spread": {name: max(t) / min(t) - 1 for name, t in seconds.items()},
        "share_of_diffusers": {
            name: medians[name] / medians["diffusers"] for name in medians if name != "diffusers"
        },
    }


def peak_memory(which: str, dtype_name: str, guided: bool, threads: int) -> float:
    """MiB that a step adds at its peak, over a process that holds the weights and the inputs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (which, dtype_name, guided, threads))


def _peak_memory(which: str, dtype_name: str, guided: bool, threads: int) -> float:
    torch.set_num_threads(threads)
    theirs, ours = make_models(DTYPES[dtype_name])
    given = make_inputs(DTYPES[dtype_name], image=True)
    runs = {
        "diffusers": lambda: run_theirs(theirs, ours, given, guided),
        "entracte": lambda: run_ours(ours, given, guided, rows=1),
    }
    step = runs[which]()
    before = _resident_now()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    with torch.inference_mode():
        step()
    return (_resident_peak() - before) / 1024


def _resident_now() -> int:
    return _status("VmRSS")


def _resident_peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)  # diffusers' advice about dtypes

    results = [
        measure(dtype, image, guided, options.repeats)
        for dtype in DTYPES
        for image in (False, True)
        for guided in (False, True)
    ]
    memory = {
        f"{dtype}, {passes} passes": {
            which: peak_memory(which, dtype, passes > 1, options.threads)
            for which in ("diffusers", "entracte")
        }
        for dtype in DTYPES
        for passes in (1, len(PASSES))
    }
    show(results, memory)
    if options.json:
        facts = {
            "torch": torch.__version__,
            "threads": options.threads,
            "cpu": torch.cpu.get_capabilities().get("cpu_name", ""),
            "amx": torch.cpu.get_capabilities().get("amx_bf16", False),
            "results": results,
            "peak_memory_mib": memory,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


def show(results: list[dict[str, Any]], memory: dict[str, dict[str, float]]) -> None:
    console = Console(width=110)
    table = Table(
        "dtype",
        "task",
        "passes",
        "floor s",
        "diffusers s",
        "entracte s",
        "one batch s",
        "share",
        "share, one batch",
    )
    for r in results:
        s, share = r["seconds"], r["share_of_diffusers"]
        batch = "entracte, one batch"
        table.add_row(
            r["dtype"],
            r["task"],
            str(r["passes"]),
            f"{s['floor']:.3f}",
            f"{s['diffusers']:.3f}",
            f"{s['entracte']:.3f}",
            f"{s[batch]:.3f}" if batch in s else "",
            f"{share['entracte']:.2f}",
            f"{share[batch]:.2f}" if batch in share else "",
        )
    console.print(table)
    table = Table("peak memory of an image-to-video step, MiB", "diffusers", "entracte")
    for name, values in memory.items():
        table.add_row(name, f"{values['diffusers']:.0f}", f"{values['entracte']:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
