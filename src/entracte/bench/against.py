"""diffusers' side of a benchmark."""

import gc
import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from entracte.checkpoints.sources import ModelSource
from entracte.request import Request

from .diffusers_result import latent_distance
from .diffusers_run import DiffusersTwoStage
from .table import Theirs


def measure_diffusers(
    source: ModelSource,
    request: Request,
    device: torch.device,
    dtype: torch.dtype,
    ours: Mapping[str, Tensor],
    warmups: int,
    repeats: int,
    tell: Callable[[str], None],
) -> Theirs:
    """Medians of diffusers' runs on a source's weights; raises what `DiffusersTwoStage` does.

    ours: the latents to compare with. Nothing else should hold weights on the device.
    """
    tell("diffusers: reading weights")
    pipelines = DiffusersTwoStage(source, device, dtype)
    runs = []
    for number in range(warmups + repeats):
        warm = number < warmups
        tell(f"diffusers: {'warm-up' if warm else f'run {number - warmups + 1} of {repeats}'}")
        result = pipelines.run(request)
        if not warm:
            runs.append(result)
    stages: dict[str, list[float]] = {}
    for run in runs:
        sums: dict[str, float] = {}
        for name, seconds in run.stages:
            sums[name] = sums.get(name, 0.0) + seconds
        for name, seconds in sums.items():
            stages.setdefault(name, []).append(seconds)
    theirs = Theirs(
        {name: statistics.median(values) for name, values in stages.items()},
        statistics.median(run.seconds for run in runs),
        max(run.peak_bytes for run in runs),
        latent_distance(ours, runs[-1].latents),
    )
    del pipelines
    gc.collect()
    return theirs
