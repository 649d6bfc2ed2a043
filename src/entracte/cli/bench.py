"""`entracte bench`: every mode on one request, stage by stage, compared with others."""

import argparse
import importlib.util
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from entracte.config.residency import parse_size
from entracte.errors import BudgetError, RequestError
from entracte.imports import quick_imports

from .flags import add_fields, add_model_settings, worded_with_flags
from .overwrite import require_absent
from .parser import whole
from .terminal import add_row, clean, plain_table

if TYPE_CHECKING:
    from entracte.bench.measure import MeasuredMode
    from entracte.bench.table import Table, Theirs
    from entracte.checkpoints.sources import ModelSource
    from entracte.request import Request
    from entracte.residency import Backend

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


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="measure every mode, stage by stage, beside published figures and diffusers",
        description="Run one request in every mode that fits, several times each, and show what "
        "every stage took, what it waited for, and whether all modes gave the same bits. Nothing "
        "is written but what --json, --markdown and --dumps ask for.",
    )
    model = parser.add_argument_group("the model")
    add_model_settings(model, ["model"])
    model.add_argument(
        "--random-weights",
        nargs="?",
        const="full",
        choices=("full", "medium"),
        help="random weights instead of files: in the published sizes, or a smaller model's",
    )
    add_model_settings(model, ["device", "dtype", "kernels"])
    add_model_settings(
        model,
        ["device_memory", "host_memory", "pinned_memory"],
        words="a limit for all modes, such as 24GiB",
    )
    video = parser.add_argument_group("the request")
    video.add_argument(
        "--preset",
        default="seed",
        help="seed (768x512, 121 frames, 30 steps), hd (1536x1024), short (25 frames) or cpu "
        "(384x256, 25 frames, 8 steps); what follows changes it",
    )
    add_fields(video, REQUEST_FIELDS)
    runs = parser.add_argument_group("what is run")
    runs.add_argument(
        "--modes",
        nargs="+",
        default=list(MODES),
        metavar="MODE",
        help="modes to run (default: all)",
    )
    runs.add_argument(
        "--repeats", type=whole(1), default=3, metavar="N", help="measured runs per mode"
    )
    runs.add_argument(
        "--warmups", type=whole(0), default=1, metavar="N", help="runs per mode beforehand"
    )
    runs.add_argument(
        "--against", choices=("diffusers",), help="also measure this library in the same run"
    )
    runs.add_argument("--trace-level", choices=("off", "stages", "blocks"), default="stages")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--no-published",
        action="store_true",
        help="leave published figures out, "
        "which are shown where the request is theirs: the full-size model on a GPU, preset seed",
    )
    output.add_argument("--markdown", action="store_true", help="print Markdown tables")
    output.add_argument("--json", action="store_true", help="print all runs as JSON")
    output.add_argument(
        "--dumps", type=Path, metavar="DIR", help="save each mode's last run for `entracte report`"
    )
    output.add_argument("--force", action="store_true", help="overwrite existing dumps")
    output.add_argument("--quiet", action="store_true", help="do not print progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    _check(options)

    with quick_imports():
        import torch

        from entracte.bench.report import bench_json
        from entracte.binding import bind
        from entracte.engine import DTYPES
        from entracte.machine.torch_device import pick_device
        from entracte.residency import open_backend

    asked = _request(options)
    dtype = DTYPES[options.dtype]
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        source = _source(options, Path(scratch))
        request = bind(asked, source.version.defaults)
        backend = open_backend(pick_device(options.device))
        found = _measure(options, source, request, backend)
        ran = [each for each in found if each.runs]
        if not ran:
            reasons = "\n".join(f"{each.mode}: {each.skipped}" for each in found)
            raise BudgetError(f"no mode fits; try --preset short, or a smaller size\n{reasons}")
        theirs = None
        if options.against is not None:
            from entracte.bench.against import measure_diffusers

            last = ran[0].last
            assert last is not None  # it ran
            theirs = measure_diffusers(
                source,
                request,
                backend.device,
                dtype,
                last.latents,
                options.warmups,
                options.repeats,
                _teller(options),
            )
    if options.json:
        assert ran[0].last is not None  # it ran
        print(json.dumps(bench_json(backend, ran[0].last.request, found, theirs)))
    else:
        on_gpu = backend.device.type == "cuda"
        published = not options.no_published and on_gpu and _is_published_run(source, request)
        _show(options, found, theirs, published)
    sys.stdout.flush()


def _check(options: argparse.Namespace) -> None:
    """Raise RequestError for contradictory options, before anything is read."""
    from entracte.bench.presets import PRESETS

    if (options.model is None) == (options.random_weights is None):
        raise RequestError("give either --model, or --random-weights for none")
    if options.preset not in PRESETS:
        raise RequestError(f"--preset {options.preset!r} is not one of {', '.join(PRESETS)}")
    for mode in options.modes:
        if mode not in MODES:
            raise RequestError(f"--modes has {mode!r}, which is not one of {', '.join(MODES)}")
    if options.repeats < 1 or options.warmups < 0:
        raise RequestError("--repeats is at least 1, and --warmups at least 0")
    if options.against is not None and importlib.util.find_spec("peft") is None:
        raise RequestError("--against diffusers needs PEFT for its LoRA: pip install peft")
    if options.dumps is not None:
        if options.trace_level == "off":
            raise RequestError("--dumps needs a trace: --trace-level stages or blocks")
        for mode in options.modes:
            path = _dump_path(options.dumps, mode)
            require_absent(path, options.force, may_ask=False)


def _request(options: argparse.Namespace) -> "Request":
    from entracte.bench.presets import PRESETS, PROMPT
    from entracte.binding import require_possible
    from entracte.request import Request

    named = {name: vars(options)[name] for name in REQUEST_FIELDS}
    given = {name: value for name, value in named.items() if value is not None}
    asked: dict[str, Any] = {"prompt": PROMPT, **PRESETS[options.preset], **given}
    with worded_with_flags():
        request = Request(**asked)
        require_possible(request)
        return request


def _source(options: argparse.Namespace, scratch: Path) -> "ModelSource":
    if options.random_weights is not None:
        from entracte.synthetic.random_model import random_model

        return random_model(options.random_weights, scratch)

    from entracte.checkpoints.model_files import ModelPaths, open_model

    return open_model(options.model, ModelPaths(), distilled=False)


def _measure(
    options: argparse.Namespace, source: "ModelSource", request: "Request", backend: "Backend"
) -> "list[MeasuredMode]":
    from entracte.bench import measure
    from entracte.engine import DTYPES, Engine
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
    found = []
    dtype, first = DTYPES[options.dtype], limited(options.modes[0])
    with Engine(source, backend, dtype, first, kernels=options.kernels) as engine:
        for mode in options.modes:
            each = measure.measure(
                engine,
                request,
                mode,
                limited(mode),
                options.warmups,
                options.repeats,
                TraceOptions(options.trace_level),
                _teller(options),
            )
            found.append(each)
            if options.dumps is not None and each.last is not None:
                dump = perf_dump(each.last.trace, {"mode": mode})
                write_perf_dump(_dump_path(options.dumps, mode), dump)
    return found


def _dump_path(folder: Path, mode: str) -> Path:
    return folder / f"{mode.replace(' ', '-')}.json"


def _teller(options: argparse.Namespace) -> Any:
    console = Console(stderr=True)
    return (lambda _: None) if options.quiet else lambda words: console.print(Text(clean(words)))


def _is_published_run(source: "ModelSource", request: "Request") -> bool:
    """Whether the published figures are of this model and request."""
    from entracte.bench.presets import PRESETS
    from entracte.models.transformer import TransformerConfig
    from entracte.planner.model_profile import published

    config = TransformerConfig.from_header(source.components["transformer"].config)
    asked = request.model_dump(include=set(PRESETS["seed"]))
    return config == published("ltx-2.3").transformer and asked == PRESETS["seed"]


def _show(
    options: argparse.Namespace,
    found: "list[MeasuredMode]",
    theirs: "Theirs | None",
    published: bool,
) -> None:
    from entracte.bench.table import markdown, stage_table, waiting_table

    tables = [
        stage_table(found, theirs, published=published),
        waiting_table(found, theirs),
    ]
    for table in tables:
        if options.markdown:
            print(markdown(table), end="\n\n")
        else:
            _print_table(table)
    if theirs is not None:
        for name, distance in theirs.distances.items():
            print(f"diffusers' {name}: {distance:.1e} from ours, relative")


def _print_table(table: "Table") -> None:
    shown = plain_table()
    for number, head in enumerate(table[0]):
        shown.add_column(head, justify="right" if number else "left", overflow="fold")
    for line in table[1:]:
        add_row(shown, *line)
    Console().print(shown)
    print()
