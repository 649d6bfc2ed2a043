"""What of a video is given, and not made: a sound, or the parts of a source outside a window."""

import logging
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.errors import MediaError
from entracte.frame_rates import exact_rate
from entracte.media.images import fit
from entracte.media.read_sound import Sound, has_sound, read_sound
from entracte.media.read_video import Resampling, read_frames, video_facts
from entracte.models.audio_vae import AudioVae
from entracte.models.mel import log_mel
from entracte.models.video_vae import TEMPORAL_SCALE
from entracte.notices import Notice
from entracte.request import Request
from entracte.sampling.tokens import MEL_FRAMES_PER_TOKEN, KeptPart

logger = logging.getLogger(__name__)

# Seconds of sound beyond the video that are read with it: the encoder does not look ahead, but the
# spectrogram does, by a window.
MORE_SOUND = 1.0

# Half a window of the spectrogram, without which it has nothing to begin with.
LEAST_SECONDS = 0.04


@dataclass(frozen=True, slots=True)
class GivenMedia:
    """What is read for a request.

    frames: of a source, [1, 3, frames, height, width] bfloat16 in -1..1. mel: of a sound, [1, 2,
    frames, 64] float32. heard: the sound that the video has, where none is made. video, audio:
    which part of each stream stays.
    """

    frames: Tensor | None = None
    mel: Tensor | None = None
    heard: Sound | None = None
    video: KeptPart | None = None
    audio: KeptPart | None = None
    notices: tuple[Notice, ...] = ()


NOTHING_GIVEN = GivenMedia()


def sized_by_source(request: Request) -> Request:
    """A request whose open size, length and rate are those of its source, where it has one.

    Sides are rounded down to what can be rendered, and the length to 8k + 1 frames. Raises
    MediaError.
    """
    source = request.source
    if source is None:
        return request
    open_ones = [request.height, request.width, request.num_frames, request.frame_rate]
    if None not in open_ones:
        return request
    facts, multiple = video_facts(source.path), request.recipe.size_multiple
    rate = exact_rate(facts.frame_rate) if request.frame_rate is None else request.frame_rate
    frames = int(facts.frames * (Fraction(rate) / facts.frame_rate))
    if facts.frames < 1 or min(facts.height, facts.width) < multiple:
        raise MediaError(
            f"video {source.path} has {facts.frames} frames of {facts.width} x {facts.height} "
            f"pixels; at least 1 of {multiple} x {multiple} is needed"
        )
    found = {
        "height": facts.height // multiple * multiple,
        "width": facts.width // multiple * multiple,
        "num_frames": (frames - 1) // TEMPORAL_SCALE * TEMPORAL_SCALE + 1,
        "frame_rate": rate,
    }
    missing = {name: value for name, value in found.items() if getattr(request, name) is None}
    return request.model_copy(update=missing)


def read_given(request: BoundRequest) -> GivenMedia:
    """Read the sound or the source of a bound request, where one is given.

    Raises MediaError for one that cannot be used, or is shorter than the video.
    """
    if request.sound is not None:
        return _read_sound(request)
    if request.source is not None:
        return _read_source(request)
    return NOTHING_GIVEN


def encode_sound(vae: AudioVae, mel: Tensor, tokens: int) -> Tensor:
    """Log-mel [1, 2, frames, 64] to normalised latents [1, 8, tokens, 16], cut or with zeros."""
    latents = vae.encode(mel)[:, :, :tokens]
    return F.pad(latents, (0, 0, 0, tokens - latents.shape[2])).contiguous()


def _read_sound(request: BoundRequest) -> GivenMedia:
    assert request.sound is not None
    seconds = float(request.num_frames / request.frame_rate)
    path, start = request.sound.path, request.sound.start
    found = read_sound(path, start, seconds + MORE_SOUND)
    mel = _spectrogram(found)
    if mel is None or -(-mel.shape[2] // MEL_FRAMES_PER_TOKEN) < request.audio_tokens:
        has = found.samples.shape[1] / found.rate
        raise MediaError(
            f"sound {path} has {has:.2f} s after {start:g} s; the video has {seconds:.2f} s"
        )
    return GivenMedia(mel=mel, heard=found.first(seconds), audio=KeptPart())


def _spectrogram(sound: Sound) -> Tensor | None:
    """None for a sound that is too short."""
    if sound.samples.shape[1] / sound.rate <= LEAST_SECONDS:
        return None
    return log_mel(sound.samples, sound.rate)


def _read_source(request: BoundRequest) -> GivenMedia:
    source = request.source
    assert source is not None
    rate, resampling = exact_rate(request.frame_rate), Resampling()
    height, width = request.height, request.width
    shape = 1, 3, request.num_frames, height, width
    pixels = torch.empty(shape, dtype=torch.bfloat16)
    for number, frame in enumerate(read_frames(source.path, request.num_frames, rate, resampling)):
        pixels[:, :, number : number + 1] = fit(frame, height, width)
    mel = None
    if has_sound(source.path):
        seconds = float(request.num_frames / request.frame_rate)
        mel = _spectrogram(read_sound(source.path, 0.0, seconds))
    notices: tuple[Notice, ...] = ()
    if resampling.words:
        logger.warning("video %s: %s", source.path.name, resampling.words)
        notices = (Notice(source.path, resampling.words),)
    inside, all_of_it = KeptPart((source.start, source.end)), KeptPart(from_noise=True)
    return GivenMedia(
        frames=pixels,
        mel=mel,
        video=all_of_it if source.remake == "sound" else inside,
        audio=None if mel is None else all_of_it if source.remake == "picture" else inside,
        notices=notices,
    )
