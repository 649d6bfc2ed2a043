"""What is said of a finished video: to people in two lines, to programs as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.units import duration, size

if TYPE_CHECKING:
    from entracte.planner.decision import Decision
    from entracte.result import Result
    from entracte.trace.trace import Trace


def result_lines(result: "Result", path: Path, mode: str) -> list[str]:
    """What came out, and what it took."""
    width, height = result.size
    nbytes = f", {size(path.stat().st_size)}" if path.is_file() else ""
    prediction = None if result.decision is None else result.decision.chosen.prediction
    how = mode if prediction is None else prediction.way.mode
    return [
        f"{path}: {width}x{height}, {result.seconds:.1f} s at {result.fps:g} frames a second, "
        f"seed {result.seed}{nbytes}",
        f"made in {duration(result.trace.seconds)}, mode {how}",
    ]


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
