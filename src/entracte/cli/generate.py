"""`entracte generate`: a video with sound from a prompt."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.config.generate import GenerateSettings
from entracte.config.opening import check_model, follow_if_launched, open_engine, path_strength
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency
from entracte.errors import RequestError
from entracte.request_fields import arguments_from

from .flags import (
    add_settings,
    condition,
    given_settings,
    worded_with_flags,
)
from .overwrite import free_name, require_absent
from .terminal import say

if TYPE_CHECKING:
    from entracte.planner.decision import Decision
    from entracte.request import LoraSpec, Request
    from entracte.result import Result
    from entracte.trace.trace import Trace


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "generate",
        description="Make a video with sound from a prompt, and from images if given.",
        epilog="Every flag but --warmup, --quiet and --json is also an environment variable "
        "(ENTRACTE_SEED) and a key of the settings file (seed) named by ENTRACTE_CONFIG, or "
        "config.toml in the user's configuration folder. Flags win over the environment, it over "
        "the file.",
    )
    add_settings(parser, GenerateSettings)
    parser.add_argument(
        "--warmup",
        action="store_true",
        help="run twice first, and correct the plan with the measured times",
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    follow_if_launched()
    settings = read_settings(GenerateSettings, given_settings(GenerateSettings, options))
    silent = options.quiet or options.json
    check_model(settings)
    request = build_request(settings)
    residency = build_residency(settings)

    from entracte.checkpoints.hub import hide_progress
    from entracte.planner.decision import describe

    from .console import print_stage_table, progress_view
    from .tracing import check_trace_outputs, trace_options, write_trace_outputs

    output = settings.output_path or free_name(Path("output.mp4"))
    files = [settings.latents_path, settings.perf_dump_path, settings.trace_path]
    written = [output, *(path for path in files if path is not None)]
    check_trace_outputs(settings)
    for path in written:
        require_absent(path, options.force, may_ask=not silent)
    if silent:
        hide_progress()
    with open_engine(settings, residency, settings.devices) as engine:
        if not silent:
            for note in engine.source.notes:
                say(note)
        traced = trace_options(settings, engine)
        with progress_view(hidden=silent) as bar:
            if options.warmup:
                engine.warm_up(request)
            result = engine.generate(
                request,
                output_path=output,
                latents_path=settings.latents_path,
                progress=bar.update,
                keep_frames=False,
                trace=traced,
            )
        summary = summarise(result)
        summary["settings"]["mode"] = residency.mode
        summary["notes"] = list(engine.source.notes)
        decision = result.decision
        if decision is None and (options.json or settings.perf_dump_path is not None):
            decision = engine.plan(request)
        summary["plan"] = None if decision is None else plan_json(decision, result.trace)
        summary["residency"] = [asdict(row) for row in engine.residency()]
    meta = summary["settings"] | {name: summary[name] for name in ("plan", "residency")}
    write_trace_outputs(settings, result.trace, meta, result.followers)
    if options.json:
        print(json.dumps(summary))
    elif not options.quiet:
        print_stage_table(result.trace)
        if decision is not None:
            print(f"plan: {describe(decision.chosen.prediction)}; {decision.chosen.reason}")
        for path in written:
            say(f"wrote {path}")
    sys.stdout.flush()


def build_request(settings: GenerateSettings) -> "Request":
    """The request that settings describe; raises RequestError where it is wrong."""
    from entracte.binding import require_possible
    from entracte.conditions import KINDS
    from entracte.request import Request

    if settings.prompt is None:
        raise RequestError("--prompt is missing: say what the video should show")
    given = arguments_from(dict(settings))
    given["conditions"] = tuple(
        condition(kind, values)
        for name, kind in KINDS.items()
        for values in listed(vars(settings)[name], kind.many)
    )
    given["loras"] = tuple(_lora(values, settings.lora_partial) for values in settings.lora or [])
    with worded_with_flags():
        request = Request(**(given | _sides(settings)))
        require_possible(request)
        return request


def listed(values: Any, many: bool) -> list[list[Any]]:
    """What the flag of a kind of condition was given, once or several times."""
    if values is None:
        return []
    return list(values) if many else [values]


def _sides(settings: GenerateSettings) -> dict[str, int]:
    """Height and width that can be rendered, and what is cut from them where they are others."""
    from entracte.recipes import RECIPES

    recipe = RECIPES[settings.pipeline]
    given: dict[str, int] = {}
    for name, side in (("height", settings.height), ("width", settings.width)):
        if side is None or side % recipe.size_multiple == 0:
            continue
        if side % 2:
            raise RequestError(f"{name}: {side} is odd; an H.264 video has even sides")
        given |= {name: recipe.rendered(side), f"output_{name}": side}
    return given


def _lora(values: list[Any], partial: bool) -> "LoraSpec":
    from entracte.request import LoraSpec

    path, strength = path_strength(values, "lora")
    return LoraSpec(path, strength, partial=partial)


def summarise(result: "Result") -> dict[str, Any]:
    """The result as JSON; it holds no prompt."""
    request = result.request
    return {
        "output_path": str(result.output_path),
        "seconds": result.trace.seconds,
        "stages": [
            {"name": span.name, "seconds": span.seconds, "steps": span.steps}
            for span in result.trace.spans
        ],
        "warnings": [asdict(each) | {"path": str(each.path)} for each in result.warnings],
        "counts": result.trace.counts,
        "settings": {
            "pipeline": request.pipeline,
            "height": request.output_height or request.height,
            "width": request.output_width or request.width,
            "num_frames": request.num_frames,
            "frame_rate": request.frame_rate,
            "num_inference_steps": request.num_inference_steps,
            "seed": request.seed,
            "images": len(request.images),
            "loras": len(request.loras),
            "audio_sample_rate": result.sample_rate,
        },
    }


def plan_json(decision: "Decision", trace: "Trace") -> dict[str, Any]:
    """The planner's choice and reason, and what it predicted beside what was measured."""
    from entracte.planner.model_planner import measured

    from .decision_json import option_json

    found = measured(trace)
    return option_json(decision.chosen) | {
        "measured": {
            "latency_s": trace.seconds,
            "stages": dict(found.stages),
            "peak_device_bytes": found.peak_device_bytes,
        }
    }
