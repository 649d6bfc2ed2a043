"""What tracing costs: the same request at every trace level, taking turns.

python benchmarks/trace_cost.py [--model DIR | --random-weights medium] [--repeats 5] [--mode M]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import get_args

from entracte import Engine, Request
from entracte.bench.measure import MODES
from entracte.bench.presets import PRESETS, PROMPT
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.engine import DTYPES
from entracte.machine.torch_device import pick_device
from entracte.residency import open_backend
from entracte.synthetic.random_model import random_model
from entracte.trace.trace import Level, TraceOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--random-weights", choices=("full", "medium"), default="medium")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--guidance-batch", type=int, default=1)
    parser.add_argument("--mode", choices=tuple(MODES), default="fused")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sizes = dict(PRESETS[options.preset])
    if options.num_inference_steps is not None:
        sizes["num_inference_steps"] = options.num_inference_steps
    request = Request(prompt=PROMPT, guidance_batch=options.guidance_batch, **sizes)
    levels = get_args(Level)
    seconds: dict[str, list[float]] = {level: [] for level in levels}
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            source = random_model(options.random_weights, Path(folder))
        else:
            source = open_model(options.model, ModelPaths(), distilled=False)
        backend = open_backend(pick_device("auto"))
        with Engine(source, backend, DTYPES["bfloat16"], MODES[options.mode]) as engine:
            for number in range(options.repeats + 1):
                for level in levels:
                    result = engine.generate(request, keep_frames=False, trace=TraceOptions(level))
                    if number:  # the first round warms up
                        seconds[level].append(result.trace.seconds)
    off = statistics.median(seconds["off"])
    print("| level | median s | over off | smallest s |")
    print("|---|---|---|---|")
    for level in levels:
        middle = statistics.median(seconds[level])
        over = middle / off - 1
        print(f"| {level} | {middle:.4f} | {over:+.2%} | {min(seconds[level]):.4f} |")


if __name__ == "__main__":
    main()
