"""Prepares, upsamples and decodes latents."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from entracte.errors import NotFinite
from entracte.models.audio_vae import AudioVae
from entracte.models.decoders import PLAIN, Decoders
from entracte.models.tiling import Tiling, decode_tiled
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.sampling.noise import Noise
from entracte.sampling.tokens import (
    AUDIO_BINS,
    AUDIO_CHANNELS,
    KeptPart,
    Tokens,
    VideoGrid,
    add_noise,
    append_tokens,
    audio_spans,
    audio_tokens,
    given_tokens,
    plain_tokens,
    replace_first_frame,
    video_tokens,
)
from entracte.stages import DECODE_VIDEO, Stage
from entracte.units import MIB

from .conditions import EncodedImage
from .references import EncodedControl

# Bytes of frames that are copied from a GPU at once. At most four such pieces are in use: one is
# copied, two wait for the encoder, and it has one.
PINNED_PIECE = 64 * MIB


@dataclass(frozen=True, slots=True)
class Latents:
    """What a phase produces.

    video: [1, channels, frames, height, width] normalised; audio: [1, 8, tokens, 16] normalised.
    """

    video: Tensor
    audio: Tensor


def empty_latents(
    grid: VideoGrid, channels: int, audio_count: int, device: torch.device, dtype: torch.dtype
) -> Latents:
    """All zeros, for a phase that starts from noise alone."""
    return Latents(
        torch.zeros(1, channels, grid.frames, grid.height, grid.width, device=device, dtype=dtype),
        torch.zeros(1, AUDIO_CHANNELS, audio_count, AUDIO_BINS, device=device, dtype=dtype),
    )


def prepare_latents(
    start: Latents,
    grid: VideoGrid,
    images: Sequence[EncodedImage],
    noise: Noise,
    noise_scale: float,
    appends_first_image: bool = False,
    kept: tuple[KeptPart | None, KeptPart | None] = (None, None),
    controls: Sequence[EncodedControl] = (),
) -> tuple[Tokens, Tokens]:
    """Video and audio tokens of a phase, noised. kept: what of `start` stays, in each stream.

    The image at frame 0 replaces the first frame's tokens, unless it is appended like the others.
    Those of control videos come last.
    Noise is drawn for the video, appended tokens included, and then for the audio.
    """
    video = _tokens(video_tokens(start.video), grid.spans(), kept[0])
    video = replace(video, pictures=((0, grid.frame_tokens),))
    for image in images:
        tokens = video_tokens(image.latent)
        if image.frame == 0 and not appends_first_image:
            video = replace_first_frame(video, tokens, image.strength)
        else:
            video = append_tokens(video, tokens, image.strength, grid.frame_spans(image.frame))
    for control in controls:
        seen, tokens = control.reference, video_tokens(control.latent)
        video = append_tokens(video, tokens, seen.strength, seen.spans(), control.weights)
    audio_start = audio_tokens(start.audio)
    audio = _tokens(audio_start, audio_spans(audio_start.shape[1]), kept[1])
    return _noised(video, noise, noise_scale, kept[0]), _noised(audio, noise, noise_scale, kept[1])


def _tokens(latent: Tensor, spans: Tensor, kept: KeptPart | None) -> Tokens:
    return plain_tokens(latent, spans) if kept is None else given_tokens(latent, spans, kept)


def noise_sizes(video_count: int, channels: int, audio_count: int) -> list[tuple[int, int]]:
    """Tokens and channels of the noise that `prepare_latents` draws.

    video_count: of the video's tokens, appended ones included.
    """
    return [(video_count, channels), (audio_count, AUDIO_CHANNELS * AUDIO_BINS)]


def _noised(tokens: Tokens, noise: Noise, scale: float, kept: KeptPart | None) -> Tokens:
    _, count, channels = tokens.latent.shape
    drawn = noise.draw(count, channels).to(tokens.latent)
    if kept is not None and kept.from_noise:
        free = replace(tokens, mask=torch.ones_like(tokens.mask))
        return tokens.with_latent(add_noise(free, drawn, scale).latent)
    return add_noise(tokens, drawn, scale)


def upsample(upsampler: Upsampler, vae: VideoVae, latent: Tensor) -> Tensor:
    """Normalised latents [1, channels, frames, h, w] to [1, channels, frames, 2h, 2w].

    The upsampler works on latents as the VAE makes them, before its statistics normalise them.
    """
    return vae.normalise(upsampler(vae.denormalise(latent)))


def decode_audio(
    vae: AudioVae, vocoder: Vocoder, latent: Tensor, decoders: Decoders = PLAIN
) -> Tensor:
    """Normalised latents [1, 8, tokens, 16] to [channels, samples] float32 in -1..1, on the CPU."""
    waveform = decoders.sound(vocoder, vae.decode(latent).to(vocoder.dtype))
    return waveform[0].float().cpu()


def decode_video(
    vae: VideoVae,
    latent: Tensor,
    tiling: Tiling,
    height: int | None = None,
    width: int | None = None,
    decoders: Decoders = PLAIN,
) -> Iterator["DecodedFrames"]:
    """Decode normalised latents [1, channels, frames, h, w], in order.

    Frames come as soon as no later tile can change them; a GPU may not have made them yet.
    height, width: to crop to, at the centre; None: uncropped.
    """
    chunks = decode_tiled(partial(decode_tile, vae, decoders), latent, tiling)
    return frames_of(chunks, height, width)


def decode_tile(vae: VideoVae, decoders: Decoders, tile: Tensor) -> Tensor:
    """Decode normalised latents [1, channels, k+1, h, w] to pixels [1, 3, 8k+1, 32h, 32w]."""
    return decoders.video(vae.decoder, vae.denormalise(tile))


def frames_of(
    chunks: Iterable[Tensor], height: int | None, width: int | None
) -> Iterator["DecodedFrames"]:
    """Pixels, cropped at the centre, as frames; see `decode_video`."""
    for pixels in chunks:
        yield DecodedFrames.of(_centre(_centre(pixels, -2, height), -1, width))


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Frames that follow one another, on the device.

    levels: [frames, height, width, 3] uint8. infinite: whether any of their pixels was not finite.
    made: on a GPU, when they are there.
    """

    levels: Tensor
    infinite: Tensor
    made: torch.cuda.Event | None

    @classmethod
    def of(cls, pixels: Tensor) -> "DecodedFrames":
        """Pixels [1, 3, frames, height, width] in -1..1; the host does not wait."""
        levels = pixels.float().add_(1).mul_(127.5)
        infinite = any_infinite(levels)
        levels = levels.clamp_(0, 255).round_()[0].permute(1, 2, 3, 0)
        levels = levels.to(torch.uint8, memory_format=torch.contiguous_format)
        made = None
        if levels.device.type == "cuda":
            made = torch.cuda.current_stream(levels.device).record_event()
        return cls(levels, infinite, made)

    def on_host(self) -> Iterator[Tensor]:
        """[frames, height, width, 3] uint8 on the CPU, once they are there, however much work a GPU
        has after them. Raises NotFinite.

        From a GPU they come in pieces: it copies into pinned memory only at the link's rate, and
        what is pinned here is in no plan. So they do not stay there while they wait for an encoder.
        """
        if self.made is None:
            _require(DECODE_VIDEO, self.infinite)
            yield self.levels.cpu()
            return
        copying = torch.cuda.Stream(self.levels.device)
        copying.wait_event(self.made)
        with torch.cuda.stream(copying):
            _require(DECODE_VIDEO, self.infinite)
        for piece in self.levels.split(max(1, PINNED_PIECE // self.levels[0].nbytes)):
            host = torch.empty(piece.shape, dtype=torch.uint8, pin_memory=True)
            with torch.cuda.stream(copying):
                host.copy_(piece, non_blocking=True)
            copying.synchronize()
            yield host.clone()


def to_host(frames: Iterable[DecodedFrames], ahead: int) -> Iterator[Tensor]:
    """[frames, height, width, 3] uint8 on the CPU, in order; raises NotFinite.

    ahead: how many of what follows is decoded, or given to the device, before the host waits.
    """
    waiting: deque[DecodedFrames] = deque()
    for each in frames:
        waiting.append(each)
        if len(waiting) > ahead:
            yield from waiting.popleft().on_host()
    while waiting:
        yield from waiting.popleft().on_host()


class OwnStream:
    """On a GPU, a stream for work that needs nothing of what is enqueued after this was made.

    The host must wait for what it started there. On other devices there is none.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=-1)  # its kernels are small
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def current(self) -> AbstractContextManager[object]:
        """Enqueue in this stream within."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _centre(pixels: Tensor, dim: int, length: int | None) -> Tensor:
    if length is None:
        return pixels
    return pixels.narrow(dim, (pixels.shape[dim] - length) // 2, length)


def require_finite(stage: Stage, *made: Tensor) -> None:
    """Raise NotFinite, naming the stage, unless all numbers are finite. Waits for the device."""
    _require(stage, any_infinite(*made))


def any_infinite(*made: Tensor) -> Tensor:
    """Whether any number is not finite, on the device.

    A tensor's minimum and maximum are finite only if all its numbers are: one NaN makes both NaN.
    Unlike a mask, or torch.aminmax of a strided tensor, they need no memory, and unlike a sum they
    do not overflow.
    """
    extremes = torch.stack(
        [extreme for tensor in made for extreme in (tensor.amin(), tensor.amax())]
    )
    return extremes.isfinite().logical_not().any()


def _require(stage: Stage, infinite: Tensor) -> None:
    if infinite.item():
        raise NotFinite(f"{stage.name} made numbers that are not finite, so there is no video")
