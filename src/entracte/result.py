"""The result of a generation."""

from base64 import b64encode
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from torch import Tensor

from entracte.binding import BoundRequest
from entracte.errors import MediaError
from entracte.files import write_atomically
from entracte.media.background_writer import BackgroundWriter
from entracte.media.output import check_output, open_output
from entracte.media.tags import tags_of
from entracte.notices import Notice
from entracte.planner.decision import Decision
from entracte.request import Request
from entracte.stages import MUX
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file that may still be being written, in a thread.

    computed: when the device had done its part, by the clock of its backend.
    """

    writer: BackgroundWriter
    computed: float


@dataclass(frozen=True, slots=True, repr=False)
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

    @property
    def seed(self) -> int:
        return self._bound.seed

    @property
    def fps(self) -> float:
        return float(self._bound.frame_rate)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        asked = self._bound
        return asked.output_width or asked.width, asked.output_height or asked.height

    @property
    def seconds(self) -> float:
        return self._bound.num_frames / self.fps

    def save(self, path: str | Path) -> Path:
        """Write an mp4, or frames and sound into an existing folder; what is there is overwritten.

        Raises MediaError, also where neither frames nor a file were kept.
        """
        target = Path(path)
        check_output(target)
        if self.frames is None:
            if self.output_path is None or not self.output_path.is_file():
                raise MediaError("the frames were not kept (keep_frames=True keeps them)")
            with write_atomically(target) as part:
                copyfile(self.output_path, part)
            return target
        tags = tags_of(self._bound)
        with open_output(target, self.fps, self.audio, self.sample_rate, tags) as writer:
            writer.write(self.frames)
        return target

    def pil(self) -> "list[Image]":
        """The frames as PIL images; raises MediaError where they were not kept."""
        from PIL import Image

        if self.frames is None:
            raise MediaError("the frames were not kept (keep_frames=True keeps them)")
        return [Image.fromarray(pixels) for pixels in self.frames.numpy()]

    def __repr__(self) -> str:
        width, height = self.size
        where = "" if self.output_path is None else f", {str(self.output_path)!r}"
        return f"Result({width}x{height}, {self.seconds:.1f} s, seed {self.seed}{where})"

    def _repr_html_(self) -> str:
        """In a notebook: the video itself."""
        with TemporaryDirectory() as folder:
            data = self.save(Path(folder) / "video.mp4").read_bytes()
        width, height = self.size
        source = f"data:video/mp4;base64,{b64encode(data).decode()}"
        return f'<video controls loop width="{width}" height="{height}" src="{source}"></video>'

    @property
    def _bound(self) -> BoundRequest:
        assert isinstance(self.request, BoundRequest)  # the engine resolves it
        return self.request

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
