"""A benchmark's results as data."""

import platform
from collections.abc import Sequence
from typing import Any

import torch

from entracte.planner.decision import said
from entracte.request import Request
from entracte.residency import Backend

from .measure import EXACT, MeasuredMode, MeasuredRun
from .table import Theirs


def machine(backend: Backend) -> dict[str, Any]:
    """The machine."""
    on_gpu = backend.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(backend.device) if on_gpu else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def bench_json(
    backend: Backend, request: Request, found: Sequence[MeasuredMode], theirs: Theirs | None
) -> dict[str, Any]:
    """Every run of every mode; seconds and bytes. It holds no prompt."""
    digests = {run.digest for each in found if each.mode in EXACT for run in each.runs}
    return {
        "machine": machine(backend),
        "request": {
            name: vars(request)[name]
            for name in (
                "pipeline",
                "width",
                "height",
                "num_frames",
                "frame_rate",
                "num_inference_steps",
                "guidance_batch",
                "seed",
            )
        },
        "same_bits": len(digests) == 1 if digests else None,
        "modes": [_mode(each) for each in found],
        "diffusers": None if theirs is None else _theirs(theirs),
    }


def _mode(each: MeasuredMode) -> dict[str, Any]:
    p = each.predicted
    return {
        "mode": each.mode,
        "skipped": each.skipped,
        "predicted": None
        if p is None
        else {
            "plan": said(p),
            "seconds": p.latency_s,
            "peak_device_bytes": p.peak_device_bytes,
            "peak_host_bytes": p.peak_host_bytes,
        },
        "runs": [_run(run) for run in each.runs],
    }


def _run(run: MeasuredRun) -> dict[str, Any]:
    parts = run.parts
    return {
        "stages": dict(run.stages),
        "end_to_end": run.end_to_end,
        "parts": {
            "compute": parts.compute,
            "copy": parts.copy,
            "merge": parts.merge,
            "read": parts.read,
            "launch": parts.launch,
            "host": parts.host,
        },
        "closed": run.closed,
        "peak_device_bytes": run.device_bytes,
        "host_bytes": run.host_bytes,
        "latents": run.digest,
    }


def _theirs(theirs: Theirs) -> dict[str, Any]:
    return {
        "stages": theirs.stages,
        "end_to_end": theirs.end_to_end,
        "peak_bytes": theirs.peak_bytes,
        "latent_distances": theirs.distances,
    }
