"""`entracte profile`: one request with a profiler, and the most expensive operations per stage."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from entracte.config.generate import GenerateSettings
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency

from .flags import add_settings, given_settings
from .overwrite import require_absent
from .parser import whole
from .tables import add_row, plain_table

if TYPE_CHECKING:
    from entracte.trace.profile import OperationCost


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "profile",
        description="Make one video with PyTorch's profiler, and list what costs most in every "
        "stage. The profiler keeps every operation: ask for few steps "
        "(--num-inference-steps 2). Times are longer than without it.",
    )
    add_settings(parser, GenerateSettings)
    parser.add_argument("--top", type=whole(1), default=5, metavar="N", help="operations a stage")
    parser.add_argument(
        "--torch-trace-path", type=Path, metavar="FILE", help="save every operation, for Perfetto"
    )
    parser.add_argument(
        "--memory-snapshot-path",
        type=Path,
        metavar="FILE",
        help="save what CUDA's allocator did, for pytorch.org/memory_viz",
    )
    parser.add_argument(
        "--cold", action="store_true", help="profile the first request, with all its loading"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--json", action="store_true", help="print all costs as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    settings = read_settings(GenerateSettings, given_settings(GenerateSettings, options))

    from entracte.config.opening import open_engine
    from entracte.files import require_writable
    from entracte.trace.profile import memory_history, profiling, stage_range
    from entracte.trace.trace import TraceOptions

    from .console import print_stage_table
    from .orders import build_request
    from .tracing import check_trace_outputs, write_trace_outputs

    check_trace_outputs(settings)
    outputs = (options.torch_trace_path, options.memory_snapshot_path)
    for path in (*outputs, settings.perf_dump_path, settings.trace_path):
        if path is not None:
            require_writable(path)
            require_absent(path, options.force, may_ask=not options.json)
    request = build_request(settings)
    engine = open_engine(settings, build_residency(settings))
    device = engine.backend.device
    if not options.cold:
        engine.generate(request, keep_frames=False)
        engine.forget_prompts()
    with (
        memory_history(device, options.memory_snapshot_path),
        profiling(device, options.torch_trace_path) as profile,
    ):
        result = engine.generate(
            request,
            keep_frames=False,
            trace=TraceOptions(settings.trace_level, stage_range),
        )
    write_trace_outputs(settings, result.trace, {"mode": settings.mode, "profiled": True})
    if options.json:
        print(json.dumps({"costs": [asdict(cost) for cost in profile.costs]}))
        return
    print_stage_table(result.trace)
    print()
    stages = dict.fromkeys(span.name for span in result.trace.spans)
    _print_costs(profile.costs, list(stages), options.top, on_device=device.type == "cuda")


def _print_costs(
    costs: "Sequence[OperationCost]", stages: Sequence[str], top: int, on_device: bool
) -> None:
    """The most expensive operations of every stage, in the order of stages."""
    table = plain_table("stage", "operation")
    for column in ("calls", "host ms", *(["device ms"] if on_device else [])):
        table.add_column(column, justify="right")
    for stage in stages:
        for number, cost in enumerate([each for each in costs if each.stage == stage][:top]):
            line = ["" if number else stage, cost.name[:60], f"{cost.calls:,}"]
            line.append(f"{cost.host_s * 1e3:,.1f}")
            add_row(table, *line, *([f"{cost.device_s * 1e3:,.1f}"] if on_device else []))
    Console().print(table)
