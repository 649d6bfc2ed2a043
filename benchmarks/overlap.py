"""Videos a minute, with and without the end of one written while the next is computed.

Both take turns in one run, with a new prompt for every video. How long an encoder takes depends on
the picture: that of random weights is harder than most.

    python benchmarks/overlap.py [--model DIR | --random-weights full] [--videos 2] [--rounds 1]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from entracte import Engine, Request, Result
from entracte.bench.measure import MODES, digest
from entracte.bench.presets import PRESETS, PROMPT
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.engine import DTYPES
from entracte.machine.torch_device import pick_device
from entracte.residency import open_backend
from entracte.stages import MUX
from entracte.synthetic.random_model import SIZES, random_model

Make = Callable[[Engine, list[Request], Path], list[Result]]


def one_by_one(engine: Engine, requests: list[Request], folder: Path) -> list[Result]:
    return [
        engine.generate(each, output_path=folder / f"{number}.mp4", keep_frames=False)
        for number, each in enumerate(requests)
    ]


def overlapped(engine: Engine, requests: list[Request], folder: Path) -> list[Result]:
    computed = [
        engine.generate(each, output_path=folder / f"{number}.mp4", keep_frames=False, wait=False)
        for number, each in enumerate(requests)
    ]
    return [each.wait() for each in computed]


WAYS: dict[str, Make] = {"one by one": one_by_one, "overlapped": overlapped}


def prompts(base: Request, videos: int) -> Iterator[list[Request]]:
    """For every turn new ones, so that each is encoded."""
    turn = 0
    while True:
        turn += 1
        yield [
            base.model_copy(update={"prompt": f"{PROMPT} {turn}.{number}"})
            for number in range(videos)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="instead of random weights")
    parser.add_argument("--random-weights", choices=tuple(SIZES), default="full")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="seed")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--mode", choices=tuple(MODES), default="resident")
    parser.add_argument("--videos", type=int, default=2, help="in a turn")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    asked = {
        name: vars(options)[name]
        for name in ("height", "width", "num_frames", "num_inference_steps")
        if vars(options)[name] is not None
    }
    base = Request(prompt=PROMPT, **PRESETS[options.preset] | asked)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    writing: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = (
            random_model(options.random_weights, folder)
            if options.model is None
            else open_model(options.model, ModelPaths(), distilled=False)
        )
        backend = open_backend(pick_device(options.device))
        with Engine(source, backend, DTYPES["bfloat16"], MODES[options.mode]) as engine:
            for _ in range(2):  # loads weights, compiles kernels, captures graphs
                engine.generate(base, output_path=folder / "warm.mp4", keep_frames=False)
            turns = prompts(base, options.videos)
            for _ in range(options.rounds):
                for way, make in WAYS.items():
                    requests = next(turns)
                    begun = time.perf_counter()
                    results = make(engine, requests, folder)
                    seconds[way].append(time.perf_counter() - begun)
                    writing[way] += [
                        span.seconds
                        for result in results
                        for span in result.trace.spans
                        if span.name == MUX.name
                    ]
            alone = digest(engine.generate(requests[0]).latents)
    print("| | videos a minute | seconds a video | of them writing what was left |")
    print("|---|---|---|---|")
    medians = {way: statistics.median(found) / options.videos for way, found in seconds.items()}
    for way, each in medians.items():
        print(f"| {way} | {60 / each:.2f} | {each:.3f} | {statistics.median(writing[way]):.3f} |")
    ratio = medians["one by one"] / medians["overlapped"]
    same = digest(results[0].latents) == alone
    print(f"\noverlapped: {ratio:.3f} times as many videos; same bits as alone: {same}")
    if options.json:
        told = {"seconds": seconds, "writing": writing, "ratio": ratio, "same bits": same}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
