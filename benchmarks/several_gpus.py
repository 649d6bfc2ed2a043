"""One video on one GPU, and on several of the same machine, in one run.

For every preset: what the stages take, the ratio to one GPU, the peak memory of every rank, and
whether the latents are the same bits. The full-size model has random weights.

    python benchmarks/several_gpus.py [--devices cuda:0 cuda:1 …] [--counts 1 2 …]
        [--cases seed i2v hd] [--parallel auto] [--size full] [--json FILE]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from entracte.bench.measure import digest
from entracte.bench.presets import PRESETS, PROMPT, write_picture
from entracte.conditions import ImageCondition
from entracte.engine import Engine
from entracte.machine.torch_device import pick_devices
from entracte.request import Request
from entracte.result import Result
from entracte.synthetic.random_model import random_model

# A warm-up compiles and captures; a few steps are enough.
WARM_STEPS = 2

# The steps of preset hd take a second each.
HD_STEPS = 8

STAGES = (
    "encode text",
    "connect text",
    "encode images (stage1)",
    "denoise",
    "upsample",
    "encode images (stage2)",
    "refine",
    "decode audio",
    "decode video",
)


@dataclass(frozen=True)
class Measured:
    """Of one request. stages, steps: seconds. peaks: GB of every rank."""

    case: str
    devices: int
    stages: Mapping[str, float]
    steps: Mapping[str, float]
    seconds: float
    peaks: Sequence[float]
    bits: str


def requests(cases: Sequence[str], folder: Path) -> dict[str, Request]:
    found = {}
    for case in cases:
        values = dict(PRESETS["hd" if case == "hd" else "seed"])
        if case == "hd":
            values["num_inference_steps"] = HD_STEPS
        if case == "i2v":
            picture = folder / "picture.png"
            write_picture(picture, values["width"], values["height"])
            values["images"] = (ImageCondition(picture),)
        found[case] = Request(prompt=PROMPT, **values)
    return found


def measured(case: str, devices: int, result: Result) -> Measured:
    trace = result.trace
    stages: dict[str, float] = {}
    for span in trace.spans:
        stages[span.name] = stages.get(span.name, 0.0) + span.seconds
    steps = {span.name: sorted(span.steps) for span in trace.spans if span.steps}
    own = max(span.memory.peak_allocated_mb for span in trace.spans if span.memory is not None)
    others = [
        max((each.memory.device_bytes or 0) for each in dump.recording.stages if each.memory)
        for dump in result.followers
        if dump.recording is not None
    ]
    return Measured(
        case,
        devices,
        stages,
        {name: each[len(each) // 2] for name, each in steps.items()},
        trace.seconds,
        [own / 953.67, *(peak / 1e9 for peak in others)],
        digest(result.latents),
    )


def run(engine: Engine, devices: int, asked: Mapping[str, Request]) -> list[Measured]:
    found = []
    for case, request in asked.items():
        started = time.perf_counter()
        few = request.model_copy(update={"num_inference_steps": WARM_STEPS})
        engine.generate(few, keep_frames=False)
        warm = time.perf_counter() - started
        engine.forget_prompts()
        found.append(measured(case, devices, engine.generate(request, keep_frames=False)))
        told = found[-1]
        stages = ", ".join(f"{name} {1e3 * told.stages.get(name, 0):.0f}" for name in STAGES)
        steps = ", ".join(f"{name} {1e3 * step:.1f}" for name, step in told.steps.items())
        peaks = " ".join(f"{peak:.1f}" for peak in told.peaks)
        print(
            f"{case}, {devices} GPUs: {told.seconds:.3f} s; ms: {stages}; a step: {steps}; "
            f"GB a rank: {peaks}; warm-up {warm:.1f} s; bits {told.bits}",
            flush=True,
        )
    return found


def compare(found: Sequence[Measured]) -> None:
    print("| case | GPUs | denoise | refine | end to end | share | bits |")
    print("|---|---|---|---|---|---|---|")
    for each in found:
        one = next((o for o in found if o.case == each.case and o.devices == 1), None)
        if one is None or each is one:
            continue
        denoise, refine = (one.steps[name] / each.steps[name] for name in ("denoise", "refine"))
        same = "equal" if each.bits == one.bits else "differ"
        print(
            f"| {each.case} | {each.devices} | {denoise:.3f}x | {refine:.3f}x | "
            f"{one.seconds / each.seconds:.3f}x | {each.seconds / one.seconds:.3f} | {same} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", nargs="+")
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=["seed", "i2v", "hd"])
    parser.add_argument("--parallel", default="auto")
    parser.add_argument("--size", default="full")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.devices or [f"cuda:{number}" for number in range(max(options.counts))]
    devices = pick_devices(names)
    if devices[0].type == "cuda":
        print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    dtype = getattr(torch, options.dtype)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch:
        asked = requests(options.cases, Path(scratch))
        open_source = partial(random_model, options.size, Path(scratch))
        for count in options.counts:
            started = time.perf_counter()
            engine = Engine.lead(open_source, devices[:count], dtype, parallel=options.parallel)
            with engine:
                print(f"{count} GPUs, open: {time.perf_counter() - started:.1f} s", flush=True)
                found += run(engine, count, asked)
            if devices[0].type == "cuda":
                torch.cuda.empty_cache()
    compare(found)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1))


if __name__ == "__main__":
    main()
