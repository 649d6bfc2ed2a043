"""What `entracte generate` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from .base import Flag, Number
from .model import ModelSettings

OptionalScale = float | None


class GenerateSettings(ModelSettings):
    """Settings of one `entracte generate`; None leaves the choice to the pipeline's defaults."""

    prompt: Annotated[
        str | None, Flag("request", "what the video shows and sounds like", "TEXT")
    ] = None
    negative_prompt: Annotated[str | None, Flag("request", "what to avoid", "TEXT")] = None
    image: Annotated[
        list[list[Number]] | None,
        Flag(
            "request",
            "show an image at a frame (default: 0); may be repeated",
            "PATH [FRAME [STRENGTH [CRF]]]",
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
    height: Annotated[
        int | None, Flag("request", "pixels; cropped from the next multiple of 64", "N")
    ] = None
    width: Annotated[
        int | None, Flag("request", "pixels; cropped from the next multiple of 64", "N")
    ] = None
    num_frames: Annotated[int | None, Flag("request", "number of frames, 8k + 1", "N")] = None
    frame_rate: Annotated[
        float | str | None, Flag("request", "frames per second, such as 24 or 24000/1001", "FPS")
    ] = None
    num_inference_steps: Annotated[
        int | None, Flag("request", "denoising steps in stage 1", "N")
    ] = None
    seed: Annotated[int | None, Flag("request", "seed of the noise", "N")] = None
    truncate_prompt: Annotated[
        bool, Flag("request", "cut prompts longer than 1,024 tokens instead of refusing them")
    ] = False

    video_cfg_guidance_scale: Annotated[
        OptionalScale,
        Flag("guidance", "how strongly to steer away from the negative prompt; 1 is off", "X"),
    ] = None
    audio_cfg_guidance_scale: Annotated[
        OptionalScale, Flag("guidance", "the same for sound", "X")
    ] = None
    video_stg_guidance_scale: Annotated[
        OptionalScale,
        Flag("guidance", "how strongly to steer away from skipped self-attention; 0 is off", "X"),
    ] = None
    audio_stg_guidance_scale: Annotated[
        OptionalScale, Flag("guidance", "the same for sound", "X")
    ] = None
    video_stg_blocks: Annotated[
        list[int] | None, Flag("guidance", "blocks whose self-attention is skipped", "N…")
    ] = None
    audio_stg_blocks: Annotated[list[int] | None, Flag("guidance", "the same for sound", "N…")] = (
        None
    )
    a2v_guidance_scale: Annotated[
        OptionalScale, Flag("guidance", "how strongly the picture follows the sound; 1 is off", "X")
    ] = None
    v2a_guidance_scale: Annotated[
        OptionalScale, Flag("guidance", "how strongly the sound follows the picture; 1 is off", "X")
    ] = None
    video_rescale_scale: Annotated[
        OptionalScale, Flag("guidance", "how far guided predictions are rescaled, 0 to 1", "X")
    ] = None
    audio_rescale_scale: Annotated[OptionalScale, Flag("guidance", "the same for sound", "X")] = (
        None
    )
    guidance_batch: Annotated[
        int, Flag("guidance", "guidance passes computed at once, 1 to 4", "N")
    ] = 1

    output_path: Annotated[
        Path | None,
        Flag(
            "output",
            "an .mp4 file, or a folder for PNG frames and a WAV (default: output.mp4, or the next "
            "free name)",
            "PATH",
        ),
    ] = None
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
