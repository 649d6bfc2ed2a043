"""Sound as the audio models take it: resampled, and as log-mel spectrograms."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .world import FRAME_RATE, SAMPLE_RATE, sample_scenes, sound
from .world.motion import events
from .world.scenes import Scenes, Split

NARROW_RATE = 16000
RATIO = SAMPLE_RATE // NARROW_RATE
FFT = 1024
HOP = 160
MEL_BINS = 64
FLOOR = 1e-5
REACH = 0.1


def waveforms(
    seed: int, count: int, frames: int, device: torch.device, split: Split = "train"
) -> Tensor:
    """The sound of clips of so many frames: [count, 2, samples] at 48 kHz."""
    scenes, start = drawn(seed, count, split)
    samples = round(frames / FRAME_RATE * SAMPLE_RATE)
    return sound(scenes.to(device), start.to(device), samples)


def drawn(seed: int, count: int, split: Split) -> tuple[Scenes, Tensor]:
    """Scenes, and when in them clips begin."""
    generator = torch.Generator().manual_seed(seed)
    return sample_scenes(count, seed, split), torch.rand(count, generator=generator)


def narrowed(wide: Tensor) -> Tensor:
    """48 kHz to 16 kHz, [..., samples] to [..., samples / 3]: a sinc with a Hann window of six
    zero crossings to each side, as torchaudio resamples by default.
    """
    kernel = _decimation().to(wide.device)
    side = (len(kernel) - RATIO) // 2
    padded = F.pad(wide.flatten(0, -2)[:, None], (side, side + RATIO))
    out = F.conv1d(padded, kernel[None, None], stride=RATIO)[..., : -(-wide.shape[-1] // RATIO)]
    return out.view(*wide.shape[:-1], -1)


@lru_cache(maxsize=1)
def _decimation() -> Tensor:
    rolloff, crossings = 0.99, 6
    side = math.ceil(crossings * RATIO / rolloff)
    at = torch.arange(-side, side + RATIO, dtype=torch.float64) * rolloff / RATIO
    at = at.clamp(-crossings, crossings)
    window = torch.cos(math.pi * at / crossings / 2).square()
    return (torch.sinc(at) * window * rolloff / RATIO).float()


def log_mel(narrow: Tensor) -> Tensor:
    """[B, 2, samples] at 16 kHz to log-mel [B, 2, samples // 160 + 1, 64].

    Frames are centred on multiples of the hop; magnitudes, not powers, are summed.
    """
    flat = narrow.flatten(0, 1)
    window = torch.hann_window(FFT, device=flat.device)
    spectrum = torch.stft(
        flat, FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    basis = mel_basis(MEL_BINS, FFT, NARROW_RATE).to(flat.device)
    mel = (basis @ spectrum.abs()).clamp(min=FLOOR).log()
    out: Tensor = mel.transpose(1, 2).unflatten(0, narrow.shape[:2])
    return out


@lru_cache(maxsize=4)
def mel_basis(bins: int, fft: int, rate: int) -> Tensor:
    """Triangles of Slaney's mel scale with unit area, [bins, fft // 2 + 1], from 0 to rate / 2.

    The scale is linear below 1 kHz, and 27 mels per factor of 6.4 above.
    """
    linear, step = 200 / 3, math.log(6.4) / 27
    top = 15 + math.log(rate / 2 / 1000) / step
    mels = torch.linspace(0, top, bins + 2, dtype=torch.float64)
    hertz = torch.where(mels < 15, linear * mels, 1000 * torch.exp(step * (mels - 15)))
    frequencies = torch.linspace(0, rate / 2, fft // 2 + 1, dtype=torch.float64)
    rising = (frequencies - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - frequencies) / (hertz[2:] - hertz[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None]).float()


def event_times(seed: int, count: int, frames: int, split: Split = "train") -> list[list[float]]:
    """When objects knock or ring in the sound of `waveforms`, in seconds from its beginning."""
    scenes, start = drawn(seed, count, split)
    duration = frames / FRAME_RATE
    return [
        [time - begin for _, time in found if begin + REACH < time < begin + duration - REACH]
        for found, begin in zip(events(scenes, 1 + duration), start.tolist(), strict=True)
    ]


def onset_errors(wave: Tensor, rate: int, times: list[list[float]]) -> list[float]:
    """How far, in seconds, the sharpest rise of sounds [B, samples] near each event is from it.

    A rise is how much louder the next 10 ms are than the last; sought is within 100 ms.
    """
    step = rate // 400
    level = F.avg_pool1d(wave.square()[:, None], 4 * step, step).clamp(min=1e-9).log()[:, 0]
    rise = level[:, 4:] - level[:, :-4]  # the border between the two is 4 steps in
    errors = []
    for row, events_of in zip(rise, times, strict=True):
        for time in events_of:
            near = round((time - REACH) * 400) - 4, round((time + REACH) * 400) - 4
            first = max(0, near[0])
            best = first + int(row[first : near[1]].argmax())
            errors.append(abs((best + 4) / 400 - time))
    return errors
