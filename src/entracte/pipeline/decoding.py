"""Decoding the picture and the sound of a video."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.media.read_sound import Sound
from entracte.media.tags import NO_TAGS, tags_of
from entracte.models.audio_vae import AudioVae
from entracte.models.tiling import Tiling
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.parallel import SpreadTiles
from entracte.stages import DECODE_AUDIO, DECODE_VIDEO
from entracte.trace.trace import Trace

from .latents import (
    DecodedFrames,
    Latents,
    OwnStream,
    decode_audio,
    decode_tile,
    decode_video,
    frames_of,
    require_finite,
    to_host,
)
from .outputs import Outputs
from .runtime import Runtime
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
        model: Runtime,
        request: BoundRequest,
        outputs: Outputs,
        stages: StageRuns,
        trace: Trace,
    ) -> None:
        self._device = model.device
        self._decoders = model.decoders
        self._mesh = model.mesh
        self._request = request
        self._outputs = outputs
        self._stages = stages
        self._trace = trace

    def begin(
        self, sound: Latents, picture: Latents, lending: ExitStack, given: Sound | None = None
    ) -> Begun:
        """Decode the sound; a GPU begins with the picture, and decodes the sound beside it.

        lending: ends the loans. given: the sound, where it is not made.
        """
        size = self._request.output_height, self._request.output_width
        with self._stages.note(DECODE_AUDIO):
            lent = self._stages.borrow(DECODE_AUDIO, lending)
            vae, vocoder = lent[AudioVae], lent[Vocoder]
            decoders = self._decoders
            ahead = int(picture.video.is_cuda)
            beside = OwnStream(self._device)
            if self._mesh is None:
                frames = decode_video(lent[VideoVae], picture.video, Tiling(), *size, decoders)
                first = list(islice(frames, ahead))
            else:
                decode = partial(decode_tile, lent[VideoVae], decoders)
                tiles = SpreadTiles(self._mesh.everyone, picture.video, Tiling(), decode)
                frames, first = frames_of(tiles.blended(), *size), []
                if ahead:
                    tiles.start()
            if given is not None:
                return Begun(chain(iter(first), frames), given.samples, given.rate, ahead)
            with beside.current():
                audio = self._shared(lambda: decode_audio(vae, vocoder, sound.audio, decoders))
            require_finite(DECODE_AUDIO, audio)
        # By its iterator, which lets go of the list at its end.
        decoded = chain(iter(first), frames)
        return Begun(decoded, audio, vocoder.sample_rate, ahead)

    def _shared(self, sound: Callable[[], Tensor]) -> Tensor:
        """Of several ranks, the last makes the sound: it has the fewest tiles."""
        if self._mesh is None:
            return sound()
        ranks = self._mesh.everyone
        maker, like = ranks.size - 1, torch.empty(0, device=self._device)
        made = sound().to(self._device) if ranks.rank == maker else None
        return ranks.from_rank(maker, made, like).cpu()

    def finish(self, begun: Begun) -> Tensor | None:
        """Decode, while earlier frames are being encoded into the output."""
        request, writer = self._request, self._outputs.video
        kept: Tensor | None = None
        with self._stages.note(DECODE_VIDEO):
            if writer is not None:
                with self._trace.host_work("encode"):
                    tags = tags_of(request) if self._outputs.tagged else NO_TAGS
                    writer.start(request.frame_rate, begun.audio, begun.sample_rate, tags)
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
