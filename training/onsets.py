"""Finds when sounds begin, and how far from what is seen."""

import torch
from torch import Tensor

HOP = 0.005  # seconds
WINDOW = 0.02
BAND = (250.0, 2600.0)  # where knocks and rings are: above rumbles, below crickets and birds
RISE = 2.0  # of the logarithm's mean over the band, within three hops
APART = 0.12  # seconds between two onsets at least
FAR = 0.25  # seconds: an event without any onset nearer counts as this


def onsets(sound: Tensor, sample_rate: int) -> list[list[float]]:
    """Times in seconds at which something begins to sound, for each clip of (B, 2, samples)."""
    step, length = round(HOP * sample_rate), round(WINDOW * sample_rate)
    mono = sound.float().mean(1)
    spectrum = torch.stft(
        mono,
        length,
        step,
        window=torch.hann_window(length, device=mono.device),
        center=True,
        return_complex=True,
    )
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    energy = (spectrum.abs().square()[:, inside.to(mono.device)].mean(1) + 1e-3).log()
    rise = torch.zeros_like(energy)
    rise[:, 3:] = energy[:, 3:] - energy[:, :-3]
    return [peaks(row.tolist(), RISE, HOP, APART, lag=1.0) for row in rise.cpu()]


def peaks(
    values: list[float], least: float, step: float, apart: float, lag: float = 0.0
) -> list[float]:
    """Times of local maxima of at least a value, the highest first where two are close.

    Between samples a parabola tells where a maximum is; a lag is how many steps late it comes.
    """
    found: list[float] = []
    inner = range(1, len(values) - 1)
    for index in sorted(inner, key=lambda each: -values[each]):
        before, here, after = values[index - 1 : index + 2]
        if here < least:
            break
        if here < before or here < after:
            continue
        bend = before - 2 * here + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        time = (index + shift - lag) * step
        if all(abs(time - other) >= apart for other in found):
            found.append(time)
    return sorted(found)


def distances(events: list[float], heard: list[float]) -> list[float]:
    """Seconds from each event to the nearest onset, at most FAR."""
    return [min([FAR, *(abs(event - each) for each in heard)]) for event in events]
