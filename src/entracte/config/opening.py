"""Opening the engine that settings describe."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.checkpoints.model_header import ModelHeader, read_model_header
from entracte.checkpoints.named import find_folder
from entracte.errors import RequestError
from entracte.imports import quick_imports
from entracte.launcher import launched_rank, launched_ranks
from entracte.recipes import prefers_distilled
from entracte.validation import shown_value

from .base import flag_name
from .model import ModelSettings

if TYPE_CHECKING:
    from entracte.engine import Engine
    from entracte.residency import Residency


def open_engine(
    settings: ModelSettings, residency: "Residency", devices: Sequence[str] = ()
) -> "Engine":
    """The engine that settings describe; raises CheckpointError and ResidencyError.

    devices: those that make each video together, if not the one of the settings; a word may have
    several, as `0,1` has.
    """
    with quick_imports():
        from entracte.engine import Engine

    lora = settings.distilled_lora
    return Engine.open(
        settings.model,
        checkpoint_path=tuple(settings.checkpoint_path) if settings.checkpoint_path else None,
        gemma_root=settings.gemma_root,
        distilled_lora=path_strength(lora, "distilled_lora") if lora else None,
        spatial_upsampler_path=settings.spatial_upsampler_path,
        pipeline=settings.pipeline,
        device=settings.device,
        devices=device_names(devices),
        parallel=settings.parallel,
        dtype=settings.dtype,
        residency=residency,
        kernels=settings.kernels,
        precision=settings.precision,
    )


def names_of(devices: Sequence[str]) -> list[str]:
    """The devices in words such as `cuda:0` and `0,1`."""
    return [name.strip() for word in devices for name in word.split(",")]


def device_names(devices: Sequence[str]) -> list[str]:
    """The devices that words name; if none, one for each rank that torchrun started."""
    named = names_of(devices)
    ranks = launched_ranks()
    if named or ranks == 1:
        return named
    import torch

    return [f"cuda:{n}" for n in range(ranks)] if torch.cuda.is_available() else ["cpu"] * ranks


def follow_if_launched() -> None:
    """Where torchrun started this process as another rank than the first: follow, and exit."""
    if launched_rank() == 0:
        return
    with quick_imports():
        from entracte.group import follow_launched

    follow_launched()


def read_header(settings: ModelSettings) -> ModelHeader:
    """What the model of settings is, without opening it; raises CheckpointError for a bad one."""
    distilled = prefers_distilled(settings.pipeline)
    return read_model_header(settings.model, settings.checkpoint_path or (), distilled)


def check_model(settings: ModelSettings) -> None:
    """Raise CheckpointError for a missing model, before the slow imports."""
    if settings.model is not None:
        find_folder(settings.model)


def path_strength(values: list[Any], name: str) -> tuple[Path, float]:
    """Parse `PATH [STRENGTH]` of a flag; raises RequestError for anything else."""
    flag = flag_name(name)
    if len(values) not in (1, 2):
        raise RequestError(f"{flag} takes PATH [STRENGTH]; it was given {len(values)} values")
    if not isinstance(values[0], str):
        raise RequestError(f"{flag} takes PATH [STRENGTH]; {shown_value(values[0])} is not a path")
    if len(values) == 1:
        return Path(values[0]), 1.0
    try:
        strength = float(values[1])
    except (ValueError, OverflowError):
        strength = math.nan
    if not math.isfinite(strength):
        shown = shown_value(values[1])
        raise RequestError(f"{flag}: the strength must be a number" + (shown and f", not {shown}"))
    return Path(values[0]), strength
