"""A benchmark's results as data."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from entracte.machine.device import processor_name
from entracte.planner.decision import describe
from entracte.residency import Backend

from .diffusers_result import MeasuredPeer
from .measure import EXACT, MeasuredMode, MeasuredRun, MeasuredTask

REQUEST_FIELDS = (
    "pipeline",
    "width",
    "height",
    "num_frames",
    "frame_rate",
    "num_inference_steps",
    "guidance_batch",
    "seed",
)


def machine(backend: Backend, devices: int = 1) -> dict[str, Any]:
    """The machine. devices: how many like the backend's made each video."""
    on_gpu = backend.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(backend.device) if on_gpu else processor_name(),
        "devices": devices,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def bench_json(
    backend: Backend, devices: int, model: str, dtype: str, found: Sequence[MeasuredTask]
) -> dict[str, Any]:
    """Every run of every mode, by task; seconds and bytes. It holds no prompt.

    model: what names it to a reader.
    """
    return {
        "machine": machine(backend, devices),
        "model": model,
        "dtype": dtype,
        "tasks": {each.task: _task(each) for each in found},
    }


def _task(found: MeasuredTask) -> dict[str, Any]:
    request = found.request
    digests = {run.digest for each in found.modes if each.mode in EXACT for run in each.runs}
    return {
        "request": {name: vars(request)[name] for name in REQUEST_FIELDS}
        | {"images": [image.frame for image in request.images]},
        "same_bits": len(digests) == 1 if digests else None,
        "floors": {
            each.stage: {
                "step": each.seconds,
                "video_tokens": each.of.video_tokens,
                "audio_tokens": each.of.audio_tokens,
                "passes": len(each.of.passes),
                "rows_at_once": each.of.rows_at_once,
            }
            for each in found.floors
        },
        "modes": {each.mode: _mode(each, found) for each in found.modes},
        "peers": {each.name: _peer(each, found) for each in found.peers},
    }


def _mode(each: MeasuredMode, task: MeasuredTask) -> dict[str, Any]:
    p = each.predicted
    return {
        "skipped": each.skipped,
        "predicted": None
        if p is None
        else {
            "plan": describe(p),
            "seconds": p.latency_s,
            "peak_device_bytes": p.peak_device_bytes,
            "peak_host_bytes": p.peak_host_bytes,
        },
        "floor_shares": {
            floor.stage: floor.seconds / each.step(floor.stage)
            for floor in task.floors
            if each.runs
        },
        "runs": [_run(run) for run in each.runs],
    }


def _run(run: MeasuredRun) -> dict[str, Any]:
    parts = run.parts
    return {
        "stages": dict(run.stages),
        "steps": dict(run.steps),
        "end_to_end": run.end_to_end,
        "parts": {
            "compute": parts.compute,
            "copy": parts.copy,
            "merge": parts.merge,
            "read": parts.read,
            "launch": parts.launch,
            "exchange": parts.exchange,
            "host": parts.host,
        },
        "closed": run.closed,
        "peak_device_bytes": run.device_bytes,
        "host_bytes": run.host_bytes,
        "latents": run.digest,
    }


def _peer(peer: MeasuredPeer, task: MeasuredTask) -> dict[str, Any]:
    found = asdict(peer)
    del found["name"]
    return found | {
        "floor_shares": {
            floor.stage: floor.seconds / peer.steps[floor.stage]
            for floor in task.floors
            if not peer.failed
        }
    }
