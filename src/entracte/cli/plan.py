"""`entracte plan`: how a request would be held on this machine or another, and why."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.imports import quick_imports

from .flags import add_fields, add_model_settings
from .overwrite import require_absent
from .parser import at_least_zero, whole
from .plan_inputs import (
    HOST_OF_A_CARD,
    PUBLISHED,
    VIDEO_FIELDS,
    build_wanted,
    build_workload,
    check_precision,
    check_wanted,
    find_machine,
    find_model,
    heed_memory,
)
from .terminal import say

if TYPE_CHECKING:
    from entracte.machine.hardware import Hardware
    from entracte.planner.decision import Decision
    from entracte.planner.workload import Workload


# Settings that fix what the planner would choose.
CHOICES = ("mode", "snapshot_policy", "resident_blocks", "merged_blocks", "place")


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "plan",
        description="Predict what a request takes in every mode, on this machine or on a card that "
        "you name, and say which is best and why. No weight is read.",
    )
    parser.add_argument(
        "--model",
        default=PUBLISHED,
        help="a folder, a hub repository, or ltx-2.0, ltx-2.3 or ltx-2.5, which need no files "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        metavar="FORMAT",
        help=f"how {PUBLISHED} stores its transformer: fp8, nvfp4, mxfp8, int8, gguf-q4_k_m, "
        "gguf-q8_0, … (default: bfloat16); other models' files say it themselves",
    )
    parser.add_argument(
        "--text-weights", metavar="FORMAT", help="the same of the text encoder (default: bfloat16)"
    )
    add_model_settings(parser, ["precision"])
    machine = parser.add_argument_group("the machine; sizes as 24GiB or 24GB")
    machine.add_argument(
        "--gpu",
        nargs="+",
        metavar=("NAME", "xN"),
        help="a known card instead of this machine, or several that make the video together, such "
        "as h100-80gb x2",
    )
    machine.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="devices of this machine that make the video together (default: one)",
    )
    add_model_settings(machine, ["parallel"])
    add_model_settings(
        machine,
        ["device_memory"],
        words="what plans may take of the device; of a card, or beyond what this machine has: what "
        "there is",
    )
    add_model_settings(
        machine, ["host_memory"], words=f"the same of the host (with --gpu: {HOST_OF_A_CARD})"
    )
    add_model_settings(machine, ["pinned_memory"])
    machine.add_argument("--h2d", metavar="RATE", help="from host to device, as 25GB/s")
    machine.add_argument("--disk", metavar="RATE", help="from the model's files")
    held = parser.add_argument_group("fixed choices (docs/reference/modes.md)")
    add_model_settings(held, CHOICES)
    video = parser.add_argument_group("the video (defaults: the pipeline's)")
    add_fields(video, VIDEO_FIELDS)
    video.add_argument("--size", metavar="WxH", help="width and height, instead of the two flags")
    video.add_argument(
        "--seconds", type=at_least_zero, metavar="S", help="length, instead of the number of frames"
    )
    video.add_argument(
        "--images", type=whole(0), default=0, metavar="N", help="number of conditioning images"
    )
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw device memory over time")
    parser.add_argument("--force", action="store_true", help="overwrite that file")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run, pipeline="two-stage")


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    _check_svg(options)
    wanted = build_wanted(options)

    with quick_imports():
        from entracte.planner.calibration import Calibration
        from entracte.planner.costs import costs
        from entracte.planner.decision import decide
        from entracte.planner.forecast import weight_phases
        from entracte.planner.group import compare
        from entracte.planner.limits import limits_of
        from entracte.planner.transformer_work import TransformerMeter

    from .decision_json import decision_json, group_json
    from .plan_tables import print_plan

    hardware, wanted = heed_memory(find_machine(options), wanted)
    check_precision(options.precision, hardware)
    model = find_model(options)
    check_wanted(wanted, model, hardware.devices)
    load = build_workload(options, model, on_gpu=not hardware.unified)
    phases = weight_phases(options.pipeline, load, model)
    meter = TransformerMeter.of(model)

    def plan(machine: "Hardware") -> "Decision":
        parallel = options.parallel
        c = costs(model, load, phases, machine, Calibration(), meter, parallel=parallel)
        return decide(c, wanted, limits_of(machine, wanted))

    decision = plan(hardware)
    group = None if hardware.devices == 1 else compare(decision, hardware, load, plan)
    if options.svg is not None:
        _draw(options.svg, decision, hardware, load)
    if options.json:
        shown = {"machine": asdict(hardware), "workload": asdict(load)}
        if group is not None:
            shown["group"] = group_json(group)
        print(json.dumps(decision_json(decision) | shown, indent=1))
        return
    if options.precision == "fp8":
        say("precision: fp8, approximate: the transformer's blocks multiply in float8")
    print_plan(decision, hardware, load, group)
    if options.svg is not None:
        say(f"wrote {options.svg}")


def _check_svg(options: argparse.Namespace) -> None:
    from entracte.files import require_writable

    if options.svg is None:
        return
    require_writable(options.svg)
    require_absent(options.svg, options.force, may_ask=not options.json)


def _draw(path: Path, decision: "Decision", hardware: "Hardware", load: "Workload") -> None:
    from entracte.files import write_atomically
    from entracte.report.plan_picture import plan_svg

    several = f"{hardware.devices} × " if hardware.devices > 1 else ""
    title = f"{several}{hardware.name}: {load.frames} frames of {load.width} × {load.height}"
    svg = plan_svg(decision.chosen.prediction, decision.limits.device, title)
    with write_atomically(path) as part:
        part.write_text(svg, encoding="utf-8")
