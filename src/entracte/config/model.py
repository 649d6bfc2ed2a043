"""Settings of all commands: the model, its device, and where its weights live."""

from pathlib import Path
from typing import Annotated, Literal

from entracte.recipes import PipelineName
from entracte.request_fields import Pipeline

from .base import Flag, Number, Settings


class ModelSettings(Settings):
    """The model's files and the residency of its weights; None leaves the choice to defaults."""

    model: Annotated[str | None, Flag("model", "model folder or hub repository", "MODEL")] = None
    checkpoint_path: Annotated[
        list[Path] | None, Flag("model", "checkpoint, in one or more files", "PATH…")
    ] = None
    gemma_root: Annotated[Path | None, Flag("model", "folder of the text encoder", "DIR")] = None
    distilled_lora: Annotated[
        list[Number] | None,
        Flag("model", "LoRA for stage 2, and its strength", "PATH [STRENGTH]"),
    ] = None
    spatial_upsampler_path: Annotated[Path | None, Flag("model", "latent upsampler", "PATH")] = None
    pipeline: Pipeline[PipelineName] = "two-stage"
    device: Annotated[str, Flag("model", "auto, cpu, cuda or cuda:N", "DEVICE")] = "auto"
    parallel: Annotated[
        Literal["auto", "off", "guidance", "sequence"],
        Flag("model", "how several devices share a video: auto, off, guidance or sequence", "KIND"),
    ] = "auto"
    dtype: Annotated[
        Literal["bfloat16", "float32"], Flag("model", "bfloat16 or float32", "DTYPE")
    ] = "bfloat16"
    precision: Annotated[
        Literal["exact", "fp8"],
        Flag("model", "exact, or fp8: approximate, products in float8 (new GPUs)", "PRECISION"),
    ] = "exact"
    kernels: Annotated[
        Literal["auto", "fused", "plain"],
        Flag("model", "on a GPU: auto (fused, captured where it pays), fused or plain", "KIND"),
    ] = "auto"

    mode: Annotated[
        Literal["auto", "resident", "fused", "snapshot", "dynamic", "original", "legacy"],
        Flag(
            "residency",
            "auto, resident, fused, snapshot, dynamic or original (alias legacy)",
            "MODE",
        ),
    ] = "auto"
    snapshot_policy: Annotated[
        Literal["low-vram", "aggressive"],
        Flag("residency", "for mode snapshot: low-vram or aggressive", "POLICY"),
    ] = "low-vram"
    resident_blocks: Annotated[
        int | None,
        Flag("residency", "number of blocks kept on the device; the others are streamed", "M"),
    ] = None
    merged_blocks: Annotated[
        int | None, Flag("residency", "for mode fused: number of blocks that stay merged", "K")
    ] = None
    place: Annotated[
        list[str] | None,
        Flag(
            "residency",
            "where a component lives: resident, snapshot, streamed or disk",
            "COMPONENT=PLACE…",
        ),
    ] = None
    device_memory: Annotated[Number | None, Flag("residency", "device memory budget", "SIZE")] = (
        None
    )
    host_memory: Annotated[Number | None, Flag("residency", "host memory budget", "SIZE")] = None
    pinned_memory: Annotated[
        Number | None, Flag("residency", "how much host memory may be pinned", "SIZE")
    ] = None
