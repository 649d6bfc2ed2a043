"""The result of a generation."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from torch import Tensor

from entracte.media.background_writer import BackgroundWriter
from entracte.notices import Notice
from entracte.planner.decision import Decision
from entracte.request import Request
from entracte.stages import MUX
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file that may still be being written, in a thread.

    computed: when the device had done its part, by the clock of its backend.
    """

    writer: BackgroundWriter
    computed: float


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
    file: what is being written to `output_path`; see `wait`.
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
    file: VideoFile | None = None

    def wait(self) -> Self:
        """Wait until the output is whole. What interrupts that leaves none.

        Raises MediaError if it cannot be written, and Cancelled.
        """
        if self.file is None:
            return self
        try:
            ended = self.file.writer.result()
        finally:
            self.file.writer.abandon()
        computed = self.file.computed
        self.trace.host_stage(MUX.name, computed, max(computed, ended))
        return replace(self, file=None)
