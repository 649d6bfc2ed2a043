"""Sound as the audio autoencoder hears it: resampled to 16 kHz, as a log-mel spectrogram."""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 16_000
WINDOW, HOP = 1024, 160
BINS, HIGHEST = 64, 8_000.0
QUIETEST = 1e-5

# Of the resampling filter: zero crossings to each side, and its edge as a share of the lower rate.
CROSSINGS, ROLLOFF = 6, 0.99


def log_mel(samples: Tensor, rate: int) -> Tensor:
    """Samples [channels, samples] float32 to [1, channels, frames, 64], 100 frames a second.

    Magnitudes of a centred short-time Fourier transform with periodic Hann windows, in bins of the
    mel scale.
    """
    at_rate = resample(samples, rate, RATE)
    window = torch.hann_window(WINDOW, device=samples.device)
    spectrum = torch.stft(
        at_rate, WINDOW, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    ).abs()
    mel = mel_filters().to(samples.device).T @ spectrum
    return mel.clamp(min=QUIETEST).log().transpose(1, 2)[None]


def resample(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """Samples [channels, samples] at another rate: a windowed sinc for every phase between both."""
    if rate == wanted:
        return samples
    common = math.gcd(rate, wanted)
    old, new = rate // common, wanted // common
    edge = ROLLOFF * min(old, new)
    width = math.ceil(CROSSINGS * old / edge)
    places = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = torch.arange(new, dtype=torch.float64) / new
    t = (edge * (places[None] - phases[:, None])).clamp(-CROSSINGS, CROSSINGS)
    kernel = t.sinc() * (math.pi * t / (2 * CROSSINGS)).cos() ** 2 * (edge / old)
    padded = F.pad(samples, (width, width + old))[:, None]
    found = F.conv1d(padded, kernel.float().to(samples)[:, None], stride=old)
    length = math.ceil(new * samples.shape[1] / old)
    return found.transpose(1, 2).flatten(1)[:, :length]


@cache
def mel_filters() -> Tensor:
    """[frequencies, 64] float32: triangles of equal area, evenly spaced in mels (Slaney's)."""
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    corners = _hertz(torch.linspace(0, _mels(HIGHEST), BINS + 2))
    widths = corners.diff()
    slopes = corners[None] - frequencies[:, None]
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    areas = 2 / (corners[2:] - corners[:-2])
    return torch.minimum(rising, falling).clamp(min=0) * areas


def _mels(hertz: float) -> float:
    """Linear up to 1 kHz, then logarithmic; for frequencies above that."""
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _hertz(mels: Tensor) -> Tensor:
    return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
