"""What a host at full load costs: the same request with an idle host and with all cores busy.

For every kind of kernels, requests without and with the load take turns in one run. A GPU that
waits for a busy host to launch kernels takes longer; one that replays captured graphs should not.

    python benchmarks/host_load.py [--random-weights full] [--kernels auto fused plain]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entracte import Engine, Request
from entracte.bench.measure import MODES, digest
from entracte.bench.presets import PRESETS, PROMPT
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.engine import DTYPES
from entracte.machine.torch_device import pick_device
from entracte.residency import Backend, open_backend
from entracte.stages import DENOISE, REFINE
from entracte.synthetic.random_model import SIZES, random_model

LOOPS = (DENOISE.name, REFINE.name)


# Says a line once it is busy.
BUSY = "print(flush=True)\nwhile True: pass"


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep as many cores busy as there are processes."""
    command = [sys.executable, "-c", BUSY]
    busy = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for each in busy:
            each.stdout.readline()
        yield
    finally:
        for each in busy:
            each.kill()
            each.communicate()


def measure(
    source: ModelSource,
    backend: Backend,
    kernels: str,
    request: Request,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Medians in seconds of end to end and of a step of every loop, without and with the load."""
    found: dict[str, list[dict[str, float]]] = {"idle": [], "loaded": []}
    digests = set()

    def run(engine: Engine) -> dict[str, float]:
        trace = (result := engine.generate(request, keep_frames=False)).trace
        digests.add(digest(result.latents))
        steps = {span.name: statistics.median(span.steps) for span in trace.spans if span.steps}
        return {"end to end": trace.seconds, **{f"a step of {n}": steps[n] for n in LOOPS}}

    dtype = DTYPES["bfloat16"]
    with Engine(source, backend, dtype, MODES[options.mode], kernels=kernels) as engine:
        for _ in range(options.warmups):
            run(engine)
        for _ in range(options.repeats):
            found["idle"].append(run(engine))
            with load(options.processes):
                found["loaded"].append(run(engine))
    return {
        "same bits": len(digests) == 1,
        **{
            state: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            for state, runs in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="instead of random weights")
    parser.add_argument("--random-weights", choices=tuple(SIZES), default="full")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="seed")
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--guidance-batch", type=int)
    parser.add_argument("--mode", choices=tuple(MODES), default="auto")
    parser.add_argument("--kernels", nargs="+", default=["auto", "fused", "plain"])
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    asked = {
        name: vars(options)[name]
        for name in ("num_frames", "num_inference_steps", "guidance_batch")
        if vars(options)[name] is not None
    }
    request = Request(prompt=PROMPT, **PRESETS[options.preset] | asked)
    results = {}
    print("| kernels | what | idle s | all cores busy s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        source = (
            random_model(options.random_weights, Path(folder))
            if options.model is None
            else open_model(options.model, ModelPaths(), distilled=False)
        )
        for kernels in options.kernels:
            backend = open_backend(pick_device(options.device))
            results[kernels] = measure(source, backend, kernels, request, options)
            idle, loaded = results[kernels]["idle"], results[kernels]["loaded"]
            for name in idle:
                times = f"{idle[name]:.3f} | {loaded[name]:.3f} | {loaded[name] / idle[name]:.3f}"
                print(f"| {kernels} | {name} | {times} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
