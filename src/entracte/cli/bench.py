"""`entracte bench`: every mode on one request, stage by stage, compared with others."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from entracte.bench.compare import TOLERANCE, compare, read
from entracte.config.generate import GenerateSettings
from entracte.config.opening import device_names, follow_if_launched
from entracte.errors import RequestError
from entracte.imports import quick_imports

from .bench_runs import (
    MODES,
    REQUEST_FIELDS,
    check,
    is_published_run,
    measure_tasks,
    requests,
    source_opener,
)
from .flags import add_fields, add_model_settings
from .parser import at_least_zero, whole
from .tables import add_row, plain_table
from .terminal import say

if TYPE_CHECKING:
    from entracte.bench.measure import MeasuredTask
    from entracte.bench.table import Table

# Where a comparison finds something worse.
EXIT_WORSE = 1


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        description="Run one request in every mode that fits, several times each, and show what "
        "every stage took, what it waited for, how near its steps are to the floor of bare matrix "
        "products and attentions, and whether all modes gave the same bits. Nothing is written but "
        "what --json, --markdown and --dumps ask for.",
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
    model.add_argument(
        "--model-version",
        choices=("2.0", "2.3", "2.5"),
        default="2.3",
        help="of full random weights (default: %(default)s)",
    )
    add_model_settings(model, ["device"])
    add_model_settings(model, ["devices"], kind=GenerateSettings)
    add_model_settings(model, ["parallel", "dtype", "kernels"])
    add_model_settings(
        model,
        ["device_memory", "host_memory", "pinned_memory"],
        words="a limit for all modes, such as 24GiB",
    )
    video = parser.add_argument_group("the request")
    video.add_argument(
        "--task",
        nargs="+",
        choices=("t2v", "i2v"),
        help="text-to-video, image-to-video, or both, beside each other (default: i2v with "
        "--image, else t2v)",
    )
    video.add_argument(
        "--image",
        nargs="+",
        action="append",
        metavar="PATH [FRAME [STRENGTH [CRF]]]",
        help="a picture for i2v (default: a synthetic one at the first frame); may be repeated",
    )
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
        "--against",
        nargs="+",
        default=[],
        choices=("diffusers", "diffusers-compiled"),
        help="also measure these in the same run; compiled: with compiled blocks",
    )
    runs.add_argument("--trace-level", choices=("off", "stages", "blocks"), default="stages")
    comparing = parser.add_argument_group("comparing with an earlier run")
    comparing.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        default=[],
        metavar="OLD [NEW]",
        help="JSON of an earlier run: this run, or that of a second file, is compared with it; "
        "exits with 1 if something is slower, larger, or of other bits",
    )
    comparing.add_argument(
        "--tolerance",
        type=at_least_zero,
        default=TOLERANCE,
        metavar="SHARE",
        help=f"how much slower or larger is not worse (default: {TOLERANCE:g})",
    )
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


def run(options: argparse.Namespace) -> int:
    """Carry out the command."""
    follow_if_launched()
    if len(options.compare) > 2:
        raise RequestError("--compare takes an earlier run's JSON, and at most one other")
    runs = [read(path) for path in options.compare]
    found: list[MeasuredTask] = []
    published = False
    if len(runs) < 2:
        check(options)
        found, published, measured = _measure(options)
        runs.append(measured)
    compared = compare(runs[0], runs[1], options.tolerance) if options.compare else None
    if options.json:
        verdict = {} if compared is None else {"compared": compared.json()}
        print(json.dumps(runs[-1] | verdict))
    else:
        _show(options, found, published)
        if compared is not None:
            _print_table(compared.table(), options.markdown)
            for line in [*compared.broken, *compared.notes]:
                say(line)
    sys.stdout.flush()
    return EXIT_WORSE if compared is not None and compared.worse else 0


def _measure(
    options: argparse.Namespace,
) -> "tuple[list[MeasuredTask], bool, dict[str, Any]]":
    """What was measured, whether there are published figures of it, and all of it as data."""
    with quick_imports():
        import torch

        from entracte.bench.report import bench_json
        from entracte.binding import bind
        from entracte.machine.torch_device import pick_devices
        from entracte.residency import open_backend

    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        asked = requests(options, Path(scratch))
        open_source = source_opener(options, Path(scratch))
        source = open_source()
        bound = {task: bind(each, source.version.defaults) for task, each in asked.items()}
        devices = pick_devices(device_names(options.devices) or [options.device])
        backend = open_backend(devices[0])
        found = measure_tasks(options, open_source, source, bound, backend, devices)
    on_gpu = backend.device.type == "cuda"
    published = on_gpu and is_published_run(source, found[0].request)
    model = f"random {options.random_weights}" if options.model is None else options.model
    return found, published, bench_json(backend, len(devices), model, options.dtype, found)


def _show(options: argparse.Namespace, found: "list[MeasuredTask]", published: bool) -> None:
    from entracte.bench.presets import TASKS
    from entracte.bench.table import stage_table, step_table, task_table, waiting_table

    for each in found:
        if len(found) > 1:
            print(f"{TASKS[each.task]}:", end="\n\n")
        for table in (
            stage_table(each, published and not options.no_published),
            step_table(each),
            waiting_table(each),
        ):
            _print_table(table, options.markdown)
        for peer in each.peers:
            if peer.failed is not None:
                say(f"{peer.name} failed: {peer.failed}")
            if peer.compiling is not None:
                say(f"{peer.name}: {peer.compiling:.1f} s of compilation come before these times")
            for name, distance in peer.distances.items():
                say(f"{peer.name}, {name}: {distance:.1e} from ours, relative")
    if len(found) > 1:
        _print_table(task_table(found), options.markdown)


def _print_table(table: "Table", as_markdown: bool) -> None:
    from entracte.bench.table import markdown

    if as_markdown:
        print(markdown(table), end="\n\n")
        return
    shown = plain_table()
    for number, head in enumerate(table[0]):
        shown.add_column(head, justify="right" if number else "left", overflow="fold")
    for line in table[1:]:
        add_row(shown, *line)
    Console().print(shown)
    print()
