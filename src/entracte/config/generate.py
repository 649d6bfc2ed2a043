"""What `entracte generate` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from entracte.conditions import (
    ControlVideo,
    ExtendedVideo,
    ImageCondition,
    SoundCondition,
    SourceVideo,
    values_of,
)
from entracte.recipes import PipelineName
from entracte.request_fields import GuidanceFields, Pipeline, RequestFields

from .base import Flag, Number, Size
from .model import ModelSettings


class GenerateSettings(ModelSettings, RequestFields, GuidanceFields):
    """Settings of one `entracte generate`; None leaves the choice to the pipeline's defaults."""

    pipeline: Pipeline[PipelineName] = "two-stage"  # as the model's, which is opened for one
    devices: Annotated[
        tuple[str, ...],
        Flag("model", "devices that make each video together (default: --device)", "DEVICE…"),
    ] = ()
    size: Annotated[
        Size | None, Flag("request", "width and height, instead of the two flags", "WxH")
    ] = None
    seconds: Annotated[
        float | None,
        Flag("request", "length, instead of the number of frames", "S"),
        Field(gt=0, le=3600),
    ] = None
    image: Annotated[
        list[list[Number]] | None,
        Flag(
            "request",
            "show an image at a frame (default: 0); may be repeated",
            values_of(ImageCondition),
        ),
    ] = None
    sound: Annotated[
        list[Number] | None,
        Flag(
            "request",
            "make the video for a sound, from a second of it on (default: 0); with --pipeline "
            "audio-to-video",
            values_of(SoundCondition),
        ),
    ] = None
    source: Annotated[
        list[Number] | None,
        Flag(
            "request",
            "make a part of a video anew, between two seconds of it: picture, sound or both "
            "(default); with --pipeline retake",
            values_of(SourceVideo),
        ),
    ] = None
    extend: Annotated[
        list[Number] | None,
        Flag(
            "request",
            "make a video longer by so many seconds at its end and at its beginning; with "
            "--pipeline extend",
            values_of(ExtendedVideo),
        ),
    ] = None
    control: Annotated[
        list[list[Number]] | None,
        Flag(
            "request",
            "have an IC-LoRA, given with --lora, follow a video, attending to it so much and where "
            "a mask video is white; may be repeated; with --pipeline ic-lora",
            values_of(ControlVideo),
        ),
    ] = None
    lora: Annotated[
        list[list[Number]] | None,
        Flag("request", "merge a LoRA in all stages; may be repeated", "PATH [STRENGTH]"),
    ] = None
    lora_partial: Annotated[
        bool,
        Flag("request", "skip the parts of a LoRA that cannot be applied, with a warning"),
    ] = False

    output_path: Annotated[
        Path | None,
        Flag(
            "output",
            "an .mp4 file, or a folder for PNG frames and a WAV (default: output.mp4, or the next "
            "free name)",
            "PATH",
        ),
    ] = None
    metadata: Annotated[
        bool, Flag("output", "say in an mp4 what it was made from: prompt, seed and settings")
    ] = True
    latents_path: Annotated[
        Path | None, Flag("output", "save all latents to a safetensors file", "FILE")
    ] = None
    perf_dump_path: Annotated[
        Path | None,
        Flag(
            "output",
            "save times, waits and memory as JSON (docs/reference/performance-dump.md)",
            "FILE",
        ),
    ] = None
    trace_path: Annotated[
        Path | None, Flag("output", "save a Chrome trace, for Perfetto", "FILE")
    ] = None
    trace_level: Annotated[
        Literal["off", "stages", "blocks"],
        Flag("output", "off, stages, or blocks (every block's run too)", "LEVEL"),
    ] = "stages"
    nvtx: Annotated[bool, Flag("output", "emit NVTX ranges for stages, for Nsight")] = False
