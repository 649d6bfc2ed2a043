"""What is given of a video, and not made, or shown to it: sounds, sources and control videos."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.conditions import ControlVideo, ExtendedVideo
from entracte.errors import MediaError, RequestError
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

from .references import GivenControl, Reference, read_control

logger = logging.getLogger(__name__)

# Seconds of sound beyond the video that are read with it: the encoder does not look ahead, but the
# spectrogram does, by a window.
MORE_SOUND = 1.0

# Half a window of the spectrogram, without which it has nothing to begin with.
LEAST_SECONDS = 0.04


@dataclass(frozen=True, slots=True)
class GivenMedia:
    """What is read for a request.

    frames: of a source, [1, 3, frames, height, width] bfloat16 in -1..1; what is added has its
    first or last frame. mel: of a sound, [1, 2, frames, 64] float32. heard: the sound that the
    video has, where none is made. video, audio: which part of each stream stays. controls:
    are looked at.
    """

    frames: Tensor | None = None
    mel: Tensor | None = None
    heard: Sound | None = None
    video: KeptPart | None = None
    audio: KeptPart | None = None
    controls: tuple[GivenControl, ...] = ()
    notices: tuple[Notice, ...] = ()


NOTHING_GIVEN = GivenMedia()


def sized_by_source(request: Request) -> Request:
    """A request whose open size, length and rate are those of its source, where it has one.

    Sides are rounded down to what can be rendered, and the length to 8k + 1 frames, to which is
    added what it is extended by. Raises MediaError.
    """
    source = request.source or request.extended
    if source is None:
        return request
    length = request.num_frames or request.seconds
    if None not in (request.height, request.width, length, request.frame_rate):
        return request
    facts, multiple = video_facts(source.path), request.recipe.size_multiple
    rate = exact_rate(facts.frame_rate) if request.frame_rate is None else request.frame_rate
    frames = int(facts.frames * (Fraction(rate) / facts.frame_rate))
    if facts.frames < 1 or min(facts.height, facts.width) < multiple:
        raise MediaError(
            f"video {source.path} has {facts.frames} frames of {facts.width} x {facts.height} "
            f"pixels; at least 1 of {multiple} x {multiple} is needed"
        )
    more = sum(_added_frames(request.extended, rate))
    found = {
        "height": facts.height // multiple * multiple,
        "width": facts.width // multiple * multiple,
        "num_frames": (frames - 1) // TEMPORAL_SCALE * TEMPORAL_SCALE + 1 + more,
        "frame_rate": rate,
    }
    if request.seconds is not None:
        del found["num_frames"]
    missing = {name: value for name, value in found.items() if getattr(request, name) is None}
    return request.model_copy(update=missing)


def _added_frames(extended: ExtendedVideo | None, rate: Fraction | float) -> tuple[int, int]:
    """How many frames are added to a video at its beginning and at its end."""
    if extended is None:
        return 0, 0
    before, after = (
        max(1, round(seconds * rate / TEMPORAL_SCALE)) * TEMPORAL_SCALE if seconds else 0
        for seconds in (extended.before, extended.after)
    )
    return before, after


def read_given(request: BoundRequest, references: Sequence[Reference] = ()) -> GivenMedia:
    """Read the sound, the source or the control videos of a bound request, where some are given.

    references: the control videos as they are looked at.
    Raises MediaError for one that cannot be used, or is shorter than the video.
    """
    if request.sound is not None:
        return _read_sound(request)
    if request.source is not None or request.extended is not None:
        return _read_source(request)
    if request.controls:
        return _read_controls(request.controls, references, exact_rate(request.frame_rate))
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
    given, source = request.source or request.extended, request.source
    assert given is not None
    rate, resampling = exact_rate(request.frame_rate), Resampling()
    before, after = _added_frames(request.extended, request.frame_rate)
    there = request.num_frames - before - after
    if there < 1:
        raise RequestError(
            f"num_frames: {request.num_frames} are no more than the {before + after} that are added"
        )
    height, width = request.height, request.width
    pixels = torch.empty((1, 3, request.num_frames, height, width), dtype=torch.bfloat16)
    for number, frame in enumerate(read_frames(given.path, there, rate, resampling), before):
        pixels[:, :, number : number + 1] = fit(frame, height, width)
    pixels[:, :, :before] = pixels[:, :, before : before + 1]
    pixels[:, :, before + there :] = pixels[:, :, before + there - 1 : before + there]
    mel = None
    if has_sound(given.path):
        sound = read_sound(given.path, 0.0, float(there / request.frame_rate))
        mel = _spectrogram(_amid_silence(sound, before, there, after, request.frame_rate))
    inside, all_of_it = KeptPart(_windows(request, before, after)), KeptPart(from_noise=True)
    remake = "both" if source is None else source.remake
    return GivenMedia(
        frames=pixels,
        mel=mel,
        video=all_of_it if remake == "sound" else inside,
        audio=None if mel is None else all_of_it if remake == "picture" else inside,
        notices=_notices(given.path, resampling),
    )


def _windows(request: BoundRequest, before: int, after: int) -> tuple[tuple[float, float], ...]:
    """What is made anew of a source, or added to it, half a frame from what stays."""
    if request.source is not None:
        return ((request.source.start, request.source.end),)
    rate, frames = request.frame_rate, request.num_frames
    at_start = (0.0, (before - 0.5) / rate)
    at_end = ((frames - after + 0.5) / rate, frames / rate)
    return (*([at_start] if before else []), *([at_end] if after else []))


def _amid_silence(sound: Sound, before: int, there: int, after: int, rate: float) -> Sound:
    """A sound as long as so many frames, with silence as long as those before and after it."""
    if not before and not after:
        return sound
    counts = [round(frames / rate * sound.rate) for frames in (before, there, after)]
    samples = F.pad(sound.samples, (0, max(0, counts[1] - sound.samples.shape[1])))
    return Sound(F.pad(samples[:, : counts[1]], (counts[0], counts[2])), sound.rate)


def _read_controls(
    controls: Sequence[ControlVideo], references: Sequence[Reference], rate: Fraction
) -> GivenMedia:
    read: list[GivenControl] = []
    notices: list[Notice] = []
    for control, reference in zip(controls, references, strict=True):
        resampling = Resampling()
        read.append(read_control(control, reference, rate, resampling))
        notices += _notices(control.path, resampling)
    return GivenMedia(controls=tuple(read), notices=tuple(notices))


def _notices(path: Path, resampling: Resampling) -> tuple[Notice, ...]:
    if not resampling.words:
        return ()
    logger.warning("video %s: %s", path.name, resampling.words)
    return (Notice(path, resampling.words),)
