"""diffusers' side of a benchmark: eager, and with compiled blocks."""

import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from entracte.checkpoints.sources import ModelSource
from entracte.errors import RequestError
from entracte.request import Request

from .compiled import told
from .diffusers_result import PEERS, DiffusersResult, MeasuredPeer, Peer, latent_distance
from .diffusers_run import DiffusersTwoStage
from .presets import BenchTask


def measure_peer(
    peer: Peer,
    source: ModelSource,
    ours: Mapping[BenchTask, tuple[Request, Mapping[str, Tensor]]],
    device: torch.device,
    dtype: torch.dtype,
    warmups: int,
    repeats: int,
    tell: Callable[[str], None],
) -> dict[BenchTask, MeasuredPeer]:
    """A peer's runs by task, on a source's weights; raises what `DiffusersTwoStage` does.

    ours: by task, the request and the latents to compare with. Nothing else should hold weights on
        the device. What diffusers cannot do, or compile, is told in the result.
    """
    name, compiled = PEERS[peer], peer == "diffusers-compiled"
    tell(f"{name}: reading weights")
    pipelines = DiffusersTwoStage(source, device, dtype, compiled=compiled)
    found = {}
    for task, (request, latents) in ours.items():
        run = partial(pipelines.run, request)
        say = partial(_say, tell, f"{name}, {task}")
        measure = measure_compiled if compiled else measure_eager
        try:
            found[task] = measure(name, run, latents, warmups, repeats, say)
        except RequestError as error:
            found[task] = MeasuredPeer(name, failed=str(error))
        if compiled:
            # Other shapes would count as recompilations, of which there may be few.
            torch.compiler.reset()
    del pipelines, run
    gc.collect()
    return found


def measure_eager(
    name: str,
    run: Callable[[], DiffusersResult],
    latents: Mapping[str, Tensor],
    warmups: int,
    repeats: int,
    tell: Callable[[str], None],
) -> MeasuredPeer:
    """Medians of repeated runs. latents: to compare with."""
    for _ in range(warmups):
        tell("warm-up")
        run()
    runs = []
    for number in range(repeats):
        tell(f"run {number + 1} of {repeats}")
        runs.append(run())
    return _medians(name, runs, latents)


def measure_compiled(
    name: str,
    run: Callable[[], DiffusersResult],
    latents: Mapping[str, Tensor],
    warmups: int,
    repeats: int,
    tell: Callable[[str], None],
) -> MeasuredPeer:
    """The same of what is compiled by a first run, which comes before the warm-ups."""
    tell("compiling")
    try:
        first = run().seconds
        found = measure_eager(name, run, latents, warmups, repeats, tell)
    except RuntimeError as error:  # of compilation, mostly; none of ours is one
        return MeasuredPeer(name, failed=told(error))
    return replace(found, compiling=max(0.0, first - found.end_to_end))


def _say(tell: Callable[[str], None], who: str, what: str) -> None:
    tell(f"{who}: {what}")


def _medians(name: str, runs: list[DiffusersResult], latents: Mapping[str, Tensor]) -> MeasuredPeer:
    stages: dict[str, list[float]] = {}
    for run in runs:
        sums: dict[str, float] = {}
        for stage, seconds in run.stages:
            sums[stage] = sums.get(stage, 0.0) + seconds
        for stage, seconds in sums.items():
            stages.setdefault(stage, []).append(seconds)
    return MeasuredPeer(
        name,
        {stage: statistics.median(values) for stage, values in stages.items()},
        {
            loop: statistics.median(step for run in runs for step in run.steps[loop])
            for loop in runs[0].steps
        },
        statistics.median(run.seconds for run in runs),
        max(run.peak_bytes for run in runs),
        latent_distance(latents, runs[-1].latents),
    )
