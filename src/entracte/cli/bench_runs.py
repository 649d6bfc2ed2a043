"""What `entracte bench` runs: requests in modes, the floor under them, and diffusers."""

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from entracte.config.residency import parse_size
from entracte.errors import BudgetError, RequestError

from .flags import condition, worded_with_flags
from .overwrite import require_absent
from .terminal import clean

if TYPE_CHECKING:
    import torch

    from entracte.bench.diffusers_result import MeasuredPeer
    from entracte.bench.measure import MeasuredMode, MeasuredTask
    from entracte.bench.presets import BenchTask
    from entracte.binding import BoundRequest
    from entracte.checkpoints.sources import ModelSource
    from entracte.engine import Engine
    from entracte.request import Request
    from entracte.residency import Backend, Residency

MODES = (
    "resident",
    "fused",
    "snapshot aggressive",
    "snapshot low-vram",
    "original",
    "dynamic",
    "auto",
)

# Fields of a request that change what the preset says.
REQUEST_FIELDS = (
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "seed",
    "prompt",
    "guidance_batch",
)


def check(options: argparse.Namespace) -> None:
    """Raise RequestError for contradictory options, before anything is read."""
    from entracte.bench.presets import PRESETS

    if (options.model is None) == (options.random_weights is None):
        raise RequestError("give either --model, or --random-weights for none")
    if options.preset not in PRESETS:
        raise RequestError(f"--preset {options.preset!r} is not one of {', '.join(PRESETS)}")
    for mode in options.modes:
        if mode not in MODES:
            raise RequestError(f"--modes has {mode!r}, which is not one of {', '.join(MODES)}")
    if options.image and "i2v" not in tasks(options):
        raise RequestError("--image is for --task i2v")
    if options.repeats < 1 or options.warmups < 0:
        raise RequestError("--repeats is at least 1, and --warmups at least 0")
    if options.against and importlib.util.find_spec("peft") is None:
        raise RequestError("--against diffusers needs PEFT for its LoRA: pip install peft")
    if options.dumps is not None:
        if options.trace_level == "off":
            raise RequestError("--dumps needs a trace: --trace-level stages or blocks")
        for task in tasks(options):
            for mode in options.modes:
                require_absent(_dump_path(options, task, mode), options.force, may_ask=False)


def tasks(options: argparse.Namespace) -> "list[BenchTask]":
    """What was asked for: with a picture image-to-video, else text-to-video, unless it is said."""
    if options.task is not None:
        return list(dict.fromkeys(options.task))
    return ["i2v"] if options.image else ["t2v"]


def requests(options: argparse.Namespace, scratch: Path) -> "dict[BenchTask, Request]":
    """The request of every task. scratch: a folder for a synthetic picture."""
    from entracte.bench.presets import PRESETS, PROMPT, write_picture
    from entracte.binding import require_possible
    from entracte.conditions import ImageCondition
    from entracte.request import Request

    named = {name: vars(options)[name] for name in REQUEST_FIELDS}
    given = {name: value for name, value in named.items() if value is not None}
    asked: dict[str, Any] = {"prompt": PROMPT, **PRESETS[options.preset], **given}
    found = {}
    for task in tasks(options):
        with worded_with_flags():
            request = Request(**asked)
            require_possible(request)
            if task == "i2v":
                images = [condition(ImageCondition, values) for values in options.image or ()]
                if not images:
                    picture = scratch / "picture.png"
                    write_picture(picture, asked["width"], asked["height"])
                    images = [ImageCondition(picture)]
                request = request.model_copy(update={"images": tuple(images)})
                require_possible(request)
            found[task] = request
    return found


def source_opener(options: argparse.Namespace, scratch: Path) -> "Callable[[], ModelSource]":
    """Opens the model, in any process. scratch: a folder for the few files of random weights."""
    if options.random_weights is not None:
        from entracte.synthetic.random_model import random_model

        version = options.model_version
        return partial(random_model, options.random_weights, scratch, version=version)

    from entracte.checkpoints.model_files import ModelPaths, open_model

    return partial(open_model, options.model, ModelPaths(), distilled=False)


def measure_modes(
    options: argparse.Namespace,
    open_engine: "Callable[[Residency], Engine]",
    asked: "dict[BenchTask, BoundRequest]",
) -> "dict[BenchTask, list[MeasuredMode]]":
    """Every mode's runs of every task: a mode's tasks follow each other, so weights stay."""
    from entracte.bench import measure
    from entracte.residency import Residency
    from entracte.trace.trace import TraceOptions
    from entracte.trace.write_dump import perf_dump, write_perf_dump

    def limited(mode: str) -> Residency:
        return replace(
            measure.MODES[mode],
            device_memory=parse_size("device_memory", options.device_memory),
            host_memory=parse_size("host_memory", options.host_memory),
            pinned_memory=parse_size("pinned_memory", options.pinned_memory),
        )

    if options.dumps is not None:
        options.dumps.mkdir(parents=True, exist_ok=True)
    found: dict[BenchTask, list[MeasuredMode]] = {task: [] for task in asked}
    tell = teller(options)
    with open_engine(limited(options.modes[0])) as engine:
        for mode in options.modes:
            for task, request in asked.items():
                each = measure.measure(
                    engine,
                    request,
                    mode,
                    limited(mode),
                    options.warmups,
                    options.repeats,
                    TraceOptions(options.trace_level),
                    lambda words: tell(f"{task}, {words}"),  # noqa: B023 (called at once)
                )
                found[task].append(each)
                if options.dumps is not None and each.last is not None:
                    dump = perf_dump(each.last.trace, {"mode": mode})
                    write_perf_dump(_dump_path(options, task, mode), dump)
    return found


def measure_tasks(
    options: argparse.Namespace,
    open_source: "Callable[[], ModelSource]",
    source: "ModelSource",
    asked: "dict[BenchTask, BoundRequest]",
    backend: "Backend",
    devices: "Sequence[torch.device]",
) -> "list[MeasuredTask]":
    """Every mode's runs of every task, the floor under their steps, and diffusers' runs.

    devices: make each video together; the first is the backend's.
    Raises BudgetError where a task runs in no mode, with the reasons.
    """
    from entracte.bench.measure import MeasuredTask
    from entracte.bench.step_floors import measure_floors
    from entracte.engine import DTYPES, Engine

    dtype, device, tell = DTYPES[options.dtype], backend.device, teller(options)

    def open_engine(first: "Residency") -> Engine:
        kernels, parallel = options.kernels, options.parallel
        if len(devices) == 1 or parallel == "off":
            return Engine(source, backend, dtype, first, kernels=kernels)
        return Engine.lead(open_source, devices, dtype, first, kernels=kernels, parallel=parallel)

    modes = measure_modes(options, open_engine, asked)
    last = {}
    for task, measured in modes.items():
        results = [each.last for each in measured if each.last is not None]
        if not results:
            reasons = "\n".join(f"{each.mode}: {each.skipped}" for each in measured)
            raise BudgetError(f"no mode fits; try --preset short, or a smaller size\n{reasons}")
        last[task] = results[0]
    floors = {}
    for task, result in last.items():
        tell(f"{task}, the floor")
        floors[task] = measure_floors(source, result.request, device, dtype, options.repeats)
    peers: list[Mapping[BenchTask, MeasuredPeer]] = []
    for peer in options.against:
        from entracte.bench.peers import measure_peer

        ours = {task: (asked[task], result.latents) for task, result in last.items()}
        repeats = options.warmups, options.repeats
        peers.append(measure_peer(peer, source, ours, device, dtype, *repeats, tell))
    return [
        MeasuredTask(
            task, result.request, modes[task], floors[task], [each[task] for each in peers]
        )
        for task, result in last.items()
    ]


def teller(options: argparse.Namespace) -> Callable[[str], None]:
    """Prints progress, unless it is not wanted."""
    if options.quiet:
        return lambda _: None
    console = Console(stderr=True)
    return lambda words: console.print(Text(clean(words)))


def is_published_run(source: "ModelSource", request: "Request") -> bool:
    """Whether the published figures are of this model and request."""
    from entracte.bench.presets import PRESETS
    from entracte.models.transformer import TransformerConfig
    from entracte.planner.model_profile import published

    config = TransformerConfig.from_header(source.components["transformer"].config)
    asked = request.model_dump(include=set(PRESETS["seed"]))
    return config == published("ltx-2.3").transformer and asked == PRESETS["seed"]


def _dump_path(options: argparse.Namespace, task: str, mode: str) -> Path:
    folder: Path = options.dumps
    name = mode if len(tasks(options)) == 1 else f"{mode} {task}"
    return folder / f"{name.replace(' ', '-')}.json"
