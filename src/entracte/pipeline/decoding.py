"""Decoding the picture and the sound of a video."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice

from torch import Tensor

from entracte.binding import BoundRequest
from entracte.models.audio_vae import AudioVae
from entracte.models.tiling import Tiling
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.stages import DECODE_AUDIO, DECODE_VIDEO
from entracte.trace.trace import Trace

from .latents import (
    DecodedFrames,
    Latents,
    OwnStream,
    decode_audio,
    decode_video,
    require_finite,
    to_host,
)
from .open_model import OpenModel
from .outputs import Outputs
from .stage_runs import StageRuns


@dataclass(frozen=True, slots=True)
class Begun:
    """A video whose sound is decoded. ahead: the frames, if any, that a GPU is at work on."""

    frames: Iterator[DecodedFrames]
    audio: Tensor
    sample_rate: int
    ahead: int


class Decoding:
    """Decodes the latents of one request."""

    def __init__(
        self,
        model: OpenModel,
        request: BoundRequest,
        outputs: Outputs,
        stages: StageRuns,
        trace: Trace,
    ) -> None:
        self._device = model.device
        self._decoders = model.decoders
        self._request = request
        self._outputs = outputs
        self._stages = stages
        self._trace = trace

    def begin(self, sound: Latents, picture: Latents, lending: ExitStack) -> Begun:
        """Decode the sound; a GPU begins with the picture, and decodes the sound beside it.

        lending: ends the loans.
        """
        size = self._request.output_height, self._request.output_width
        with self._stages.note(DECODE_AUDIO):
            lent = self._stages.borrow(DECODE_AUDIO, lending)
            vae, vocoder = lent[AudioVae], lent[Vocoder]
            decoders = self._decoders
            frames = decode_video(lent[VideoVae], picture.video, Tiling(), *size, decoders)
            beside = OwnStream(self._device)
            first = list(islice(frames, int(picture.video.is_cuda)))
            with beside.current():
                audio = decode_audio(vae, vocoder, sound.audio, decoders)
            require_finite(DECODE_AUDIO, audio)
        # By its iterator, which lets go of the list at its end.
        decoded = chain(iter(first), frames)
        return Begun(decoded, audio, vocoder.sample_rate, ahead=len(first))

    def finish(self, begun: Begun) -> Tensor | None:
        """Decode, while earlier frames are being encoded into the output."""
        request, writer = self._request, self._outputs.video
        kept: Tensor | None = None
        with self._stages.note(DECODE_VIDEO):
            if writer is not None:
                with self._trace.host_work("encode"):
                    writer.start(request.frame_rate, begun.audio, begun.sample_rate)
            done = 0
            for frames in to_host(begun.frames, begun.ahead):
                if writer is not None:
                    with self._trace.host_work("encode"):
                        writer.add(frames)
                if self._outputs.keep_frames:
                    if kept is None:
                        kept = frames.new_empty((request.num_frames, *frames.shape[1:]))
                    kept[done : done + len(frames)] = frames
                done += len(frames)
        return kept
