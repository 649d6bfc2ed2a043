"""The result of a generation."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from entracte.notices import Notice
from entracte.planner.decision import Decision
from entracte.request import Request
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Result:
    """A finished generation.

    frames: [frames, height, width, 3] uint8, None if they were not to be kept.
    audio: [2, samples] float32 in -1..1, at `sample_rate` a second, as the model made it: up to
        50 ms shorter than the picture. In files, silence follows it to the picture's end.
    latents: `stage1.video_latent` [1, 128, frames, h, w], `stage1.audio_latent` [1, 8, tokens, 16],
        and so on for every phase, on the CPU.
    output_path: the file or folder that was written, if any.
    decision: the planner's, in mode `auto`.
    followers: the dumps of the other ranks' traces, where several devices made it.
    warnings: how it may differ from the request, such as keys of a LoRA that were left out.
    """

    request: Request
    frames: Tensor | None
    audio: Tensor
    sample_rate: int
    latents: dict[str, Tensor]
    trace: Trace
    output_path: Path | None
    decision: Decision | None = None
    warnings: tuple[Notice, ...] = ()
    followers: tuple[Dump, ...] = ()
