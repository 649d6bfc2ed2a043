"""From the start of a process to the first frames of its first video, weights in files.

The files are written (random weights, in a size that is given), which leaves them in the page
cache where there is room. Then processes are started one after the other; the first also compiles
and caches what is kept between processes, so the second is the one to look at.

    python benchmarks/cold_start.py [--folder DIR] [--size full] [--blocks 12] [--mode auto]

DIR is to be on a disk, or in memory (/dev/shm), and is kept; without it, what is written is
deleted. The full size needs room for 79 GB; with 12 of the transformer's 48 blocks, and all else as
published, 45.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

SIZES = ("full", "medium", "demo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for the files, which stay there")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--blocks", type=int, metavar="N", help="of the transformer")
    parser.add_argument("--preset", default="seed")
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(start(options)))
        return
    with ExitStack() as scratch:
        folder = options.folder
        if folder is None:
            folder = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
        write(options.size, folder, options.blocks)
        found = []
        for number in range(options.processes):
            words = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder)]
            words += ["--child", str(time.monotonic())]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"Process {number + 1}:", end="\n\n")
            show(found[-1])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def write(size: str, folder: Path, blocks: int | None) -> None:
    """Write the model, unless the folder has one."""
    if any(folder.glob("*.safetensors")):
        return
    started = time.monotonic()
    if size == "demo":
        from entracte.synthetic.demo import write_demo_model

        files = write_demo_model(folder)
    else:
        from entracte.synthetic.random_files import write_random_model

        files = write_random_model(size, folder, blocks)
    total = sum(path.stat().st_size for path in files)
    print(f"wrote {total / 1e9:.2f} GB in {time.monotonic() - started:.1f} s", end="\n\n")


def start(options: argparse.Namespace) -> dict[str, Any]:
    """What a new process does until its first frames are on the host: parts in seconds, in order.

    `time.monotonic` counts from the machine's start, so the parent's times are this process's.
    """
    began: list[tuple[str, float]] = [("interpreter", options.child)]

    @contextmanager
    def begin(name: str) -> Iterator[None]:
        began.append((name, time.monotonic()))
        yield

    with begin("imports"):
        from entracte import Engine, Request
        from entracte.bench.measure import MODES
        from entracte.bench.presets import PRESETS, PROMPT
        from entracte.trace.trace import TraceOptions

    asked = {name: vars(options)[name] for name in ("num_frames", "num_inference_steps")}
    given = {name: value for name, value in asked.items() if value is not None}
    request = Request(prompt=PROMPT, **PRESETS[options.preset] | given)
    with begin("open"):
        engine = Engine.open(options.folder, device=options.device, residency=MODES[options.mode])
    output = options.folder / "cold-start.mp4"
    with engine:
        # A stretch called "encode" begins as soon as frames are on the host.
        result = engine.generate(
            request, output_path=output, keep_frames=False, trace=TraceOptions(range=begin)
        )
        output.unlink()
        files = bytes_read(engine)
    frames = next(number for number, (name, _) in enumerate(began) if name == "encode")
    until = began[: frames + 1]
    parts: dict[str, float] = {}
    for (name, at), (_, after) in pairwise(until):
        parts[name] = parts.get(name, 0.0) + after - at
    waits: dict[str, float] = {}
    for span, each in zip(result.trace.spans, result.trace.parts(), strict=False):
        waits[span.name] = waits.get(span.name, 0.0) + each.stall
    return {
        "first_frames": until[-1][1] - options.child,
        "parts": parts,
        "waits_for_weights": waits,
        "mode": options.mode if result.decision is None else plan_of(result),
        "bytes_read_of": files,
    }


def plan_of(result: Any) -> str:
    from entracte.planner import decision

    return decision.describe(result.decision.chosen.prediction)


def bytes_read(engine: Any) -> dict[str, tuple[int, int]]:
    """By file, how many bytes of weights were read, and how many it has that a model needs.

    A LoRA is opened again by what merges it, so only the process's reads, of whatever files, tell
    that it was read once.
    """
    source = engine.source
    needed: dict[Path, tuple[Any, int]] = {}
    for component in source.components.values():
        for each in component.tensors.values():
            _, nbytes = needed.get(each.file.path, (None, 0))
            needed[each.file.path] = each.file, nbytes + each.info.nbytes
    found = {path.name: (file.bytes_taken, nbytes) for path, (file, nbytes) in needed.items()}
    lora = sum(info.nbytes for info in source.distilled_lora[0].tensors.values())
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    total = lora + sum(nbytes for _, nbytes in found.values())
    return found | {"the process, of all weights": (int(counters["rchar"]), total)}


def show(found: dict[str, Any]) -> None:
    print("| until the first frames | s | of it waiting for weights |\n|---|---|---|")
    for name, seconds in found["parts"].items():
        print(f"| {name} | {seconds:.2f} | {found['waits_for_weights'].get(name, 0.0):.2f} |")
    print(f"| all | {found['first_frames']:.2f} | |", end="\n\n")
    print(found["mode"], end="\n\n")
    print("| file | GB read | of | times |\n|---|---|---|---|")
    for name, (taken, of) in found["bytes_read_of"].items():
        print(f"| {name} | {taken / 1e9:.3f} | {of / 1e9:.3f} | {taken / of:.3f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
