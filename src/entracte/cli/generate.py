"""`entracte generate`: a video with sound from a prompt."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.errors import RequestError
from entracte.settings.base import read_settings
from entracte.settings.generate import GenerateSettings
from entracte.settings.model import ModelSettings

from .flags import HelpFormatter, add_settings, given_settings
from .residency import build_residency

if TYPE_CHECKING:
    from entracte.engine import Engine
    from entracte.planner.decision import Decision
    from entracte.request import ImageCondition, LoraSpec, Request
    from entracte.residency import Residency
    from entracte.result import Result
    from entracte.trace.trace import Trace

# Settings that a request takes as they are.
REQUEST_FIELDS = (
    "prompt",
    "negative_prompt",
    "pipeline",
    "height",
    "width",
    "num_frames",
    "frame_rate",
    "num_inference_steps",
    "seed",
    "truncate_prompt",
    "guidance_batch",
)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "generate",
        help="make a video with sound",
        formatter_class=HelpFormatter,
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
        help="make the video twice beforehand, and plan by what that took",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    settings = read_settings(GenerateSettings, given_settings(GenerateSettings, options))
    request = build_request(settings)
    residency = build_residency(settings)

    from entracte.planner.decision import said

    from .console import ProgressBar, print_stage_table
    from .tracing import check_trace_outputs, trace_options, write_trace_outputs

    check_trace_outputs(settings)
    engine = open_engine(settings, residency)
    traced = trace_options(settings, engine)
    silent = options.quiet or options.json
    with ProgressBar(hidden=silent) as bar:
        if options.warmup:
            engine.warm_up(request)
        result = engine.generate(
            request,
            output_path=settings.output_path,
            latents_path=settings.latents_path,
            progress=bar.update,
            keep_frames=False,
            trace=traced,
        )
    summary = summarise(result)
    summary["settings"]["mode"] = residency.mode
    decision = result.decision
    if decision is None and (options.json or settings.perf_dump_path is not None):
        decision = engine.plan(request)
    summary["plan"] = None if decision is None else plan_json(decision, result.trace)
    summary["residency"] = [asdict(row) for row in engine.residency()]
    meta = summary["settings"] | {name: summary[name] for name in ("plan", "residency")}
    write_trace_outputs(settings, result.trace, meta)
    if options.json:
        print(json.dumps(summary))
    elif not options.quiet:
        print_stage_table(result.trace)
        if decision is not None:
            print(f"plan: {said(decision.chosen.prediction)}; {decision.chosen.reason}")
        print(f"wrote {result.output_path}")
    sys.stdout.flush()


def open_engine(settings: ModelSettings, residency: "Residency") -> "Engine":
    """The engine that settings describe; raises CheckpointError and ResidencyError."""
    from entracte.engine import Engine

    lora = settings.distilled_lora
    return Engine.open(
        settings.model,
        checkpoint_path=tuple(settings.checkpoint_path) if settings.checkpoint_path else None,
        gemma_root=settings.gemma_root,
        distilled_lora=_path_strength(lora, "distilled_lora") if lora else None,
        spatial_upsampler_path=settings.spatial_upsampler_path,
        pipeline=settings.pipeline,
        device=settings.device,
        dtype=settings.dtype,
        residency=residency,
    )


def build_request(settings: GenerateSettings) -> "Request":
    """The request that settings describe; raises RequestError where it is wrong."""
    from entracte.recipes import DEFAULTS
    from entracte.request import DEFAULT_VERSION, Request
    from entracte.sampling.guidance import Guidance

    if settings.prompt is None:
        raise RequestError("--prompt is missing: say what the video should show")
    defaults = DEFAULTS[DEFAULT_VERSION]

    scales = settings.model_dump()

    def guidance(stream: str, modality: str, default: Guidance) -> Guidance:
        blocks = scales[f"{stream}_stg_blocks"]
        given = {
            "cfg": scales[f"{stream}_cfg_guidance_scale"],
            "stg": scales[f"{stream}_stg_guidance_scale"],
            "stg_blocks": None if blocks is None else tuple(blocks),
            "modality": scales[f"{modality}_guidance_scale"],
            "rescale": scales[f"{stream}_rescale_scale"],
        }
        return replace(default, **{name: v for name, v in given.items() if v is not None})

    given = settings.model_dump(include=set(REQUEST_FIELDS))
    given["images"] = tuple(_image(values) for values in settings.image or [])
    given["loras"] = tuple(_lora(values) for values in settings.lora or [])
    given["video_guidance"] = guidance("video", "a2v", defaults.video_guidance)
    given["audio_guidance"] = guidance("audio", "v2a", defaults.audio_guidance)
    return Request(**given)


def _image(values: list[Any]) -> "ImageCondition":
    from entracte.request import ImageCondition

    if len(values) not in (3, 4):
        raise RequestError(
            f"--image takes PATH FRAME STRENGTH [CRF]; it was given {len(values)} values"
        )
    given = dict(zip(("path", "frame", "strength", "crf"), values, strict=False))
    return ImageCondition(**given)


def _lora(values: list[Any]) -> "LoraSpec":
    from entracte.request import LoraSpec

    path, strength = _path_strength(values, "lora")
    return LoraSpec(path=path, strength=strength)


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
        "counts": result.trace.counts,
        "settings": {
            "pipeline": request.pipeline,
            "height": request.height,
            "width": request.width,
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
    from entracte.planned import measured
    from entracte.planner.summary import option_json

    found = measured(trace)
    return option_json(decision.chosen) | {
        "measured": {
            "latency_s": trace.seconds,
            "stages": dict(found.stages),
            "peak_device_bytes": found.peak_device_bytes,
        }
    }


def _path_strength(values: list[Any], name: str) -> tuple[Path, float]:
    flag = f"--{name.replace('_', '-')}"
    if len(values) not in (1, 2):
        raise RequestError(f"{flag} takes PATH [STRENGTH]; it was given {len(values)} values")
    if len(values) == 1:
        return Path(values[0]), 1.0
    try:
        return Path(values[0]), float(values[1])
    except ValueError:
        raise RequestError(f"{flag}: the strength {values[1]!r} is no number") from None
