"""Sound as the audio models take it: resampled, and as log-mel spectrograms."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .world import FRAME_RATE, SAMPLE_RATE, sample_scenes, sound
from .world.scenes import Split

NARROW_RATE = 16000
RATIO = SAMPLE_RATE // NARROW_RATE
FFT = 1024
HOP = 160
MEL_BINS = 64
FLOOR = 1e-5


def waveforms(
    seed: int, count: int, frames: int, device: torch.device, split: Split = "train"
) -> Tensor:
    """The sound of clips of so many frames: [count, 2, samples] at 48 kHz."""
    scenes = sample_scenes(count, seed, split).to(device)
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, generator=generator).to(device)
    return sound(scenes, start, round(frames / FRAME_RATE * SAMPLE_RATE))


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
    return mel.transpose(1, 2).unflatten(0, narrow.shape[:2])


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


def onsets(wave: Tensor, rate: int, count: int = 8) -> list[list[float]]:
    """The times in seconds at which the loudest rises of sounds [B, samples] are.

    A rise is a peak of the difference between the loudness of the next and the last 10 ms.
    """
    step = rate // 200  # 5 ms
    level = F.avg_pool1d(wave.square()[:, None], step).clamp(min=1e-8).log10()[:, 0]
    smooth = F.avg_pool1d(level[:, None], 2, 1)[:, 0]
    rise = (smooth[:, 2:] - smooth[:, :-2]).clamp(min=0)
    peak = (rise == F.max_pool1d(rise[:, None], 21, 1, padding=10)[:, 0]) & (rise > 0.7)
    found = []
    for row, peaks in zip(rise.tolist(), peak.tolist(), strict=True):
        times = [(value, i) for i, (value, is_peak) in enumerate(zip(row, peaks, strict=True)) if is_peak]
        found.append(sorted((i + 2) * step / rate for _, i in sorted(times, reverse=True)[:count]))
    return found


def onset_errors(made: Tensor, wanted: Tensor, rate: int) -> tuple[float, float]:
    """How far, in ms on average, the nearest onset of a made sound [B, samples] is from every
    wanted one, and the share of the wanted ones that have none within 60 ms.
    """
    errors: list[float] = []
    for ours, theirs in zip(onsets(made, rate), onsets(wanted, rate), strict=True):
        errors += [min((abs(each - time) for each in ours), default=1.0) for time in theirs]
    near = [each for each in errors if each <= 0.06]
    mean = 1000 * sum(near) / max(1, len(near))
    return mean, 1 - len(near) / max(1, len(errors))
