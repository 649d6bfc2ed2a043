"""The sound of scenes: what objects do, each from its place, over that of the background."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.world.motion import poses, since_event, tempo
from training.world.scenes import (
    BACKGROUNDS,
    FINISHES,
    GROW,
    ORBIT,
    ROLL,
    SLIDE,
    SPIN,
    SWING,
    Scenes,
)

SAMPLE_RATE = 48000
KNOCKS = (950.0, 620.0, 400.0)  # pitch by size, in Hz
HUMS = (196.0, 147.0, 110.0)
CIRCLES = (523.0, 392.0, 294.0)

# Noise by motion: the band in Hz, and its loudness.
NOISES = {
    ROLL: (70.0, 260.0, 0.16),
    SLIDE: (1200.0, 3200.0, 0.07),
    SWING: (350.0, 1100.0, 0.15),
}


class Ambience(NamedTuple):
    low: float  # the noise's band, in Hz
    high: float
    loud: float
    gusts: float  # how much it swells, 0 to 1
    every: float  # seconds from one swell to the next


AMBIENCES = {
    "meadow": Ambience(300, 900, 0.008, 0.5, 2.5),
    "beach": Ambience(200, 2500, 0.05, 0.85, 3.0),
    "dusk": Ambience(90, 300, 0.02, 0.6, 2.5),
    "night": Ambience(200, 600, 0.006, 0.3, 2.5),
    "checkerboard": Ambience(60, 180, 0.008, 0.0, 2.5),
    "snow": Ambience(400, 900, 0.045, 0.7, 2.0),
}


def sound(scenes: Scenes, start: Tensor, samples: int, rate: int = SAMPLE_RATE) -> Tensor:
    """The sound from a time (B,) on: float32 (B, 2, samples), left and right, in (-1, 1)."""
    device = start.device
    scenes = scenes.to(device)
    n = (start.double() * rate).round().long()[:, None] + torch.arange(samples, device=device)
    times = (n.double() / rate).float()
    noise = white_noise(scenes.seed, n)
    heard = bodies(scenes, times, noise[:, :2], rate)
    pan = poses(scenes, times).x.clamp(-0.75, 0.75) / 1.5 + 0.5
    turn = 0.5 * math.pi * (0.15 + 0.7 * pan)
    left, right = (heard * turn.cos()).sum(1), (heard * turn.sin()).sum(1)
    around = ambience(scenes, times, noise[:, 2:], rate)
    return (torch.stack([left, right], 1) + around).tanh()


def white_noise(seed: Tensor, n: Tensor) -> Tensor:
    """Four streams of noise at samples n (B, S): float32 (B, 4, S), of variance 1.

    It is hashed, so that it is the same on any device and wherever a clip begins.
    """
    stream = torch.arange(4, device=n.device)[:, None]
    x = (n[:, None] + (seed[:, None, None] * 4 + stream) * 1_000_003) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    x = x ^ (x >> 16)
    return (x.double() / 2**31 - 1).float() * math.sqrt(3)


def band(noise: Tensor, low: Tensor, high: Tensor, rate: int) -> Tensor:
    """Noise of variance 1 with soft borders at frequencies (B, C, 1)."""
    spectrum = torch.fft.rfft(noise)
    frequency = torch.fft.rfftfreq(noise.shape[-1], 1 / rate, device=noise.device).clamp(min=1)
    gain = 1 / ((1 + (low / frequency) ** 6) * (1 + (frequency / high) ** 6))
    loudness = gain.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
    filtered: Tensor = torch.fft.irfft(spectrum * gain / loudness, n=noise.shape[-1])
    return filtered


def bodies(scenes: Scenes, times: Tensor, noise: Tensor, rate: int) -> Tensor:
    """What each object sounds like: (B, 2, S)."""
    device = times.device
    t = times[:, None]
    motion, size = scenes.motion[..., None], scenes.size[..., None]
    pose, pace = poses(scenes, times), tempo(scenes)
    speed = torch.where(scenes.present()[..., None], pose.speed, 0.0)

    def by_size(pitches: tuple[float, ...]) -> Tensor:
        return torch.tensor(pitches, device=device)[size]

    # Bounces knock and what has grown up rings, longer if it is shiny.
    since = since_event(scenes, times)
    pitch = by_size(KNOCKS) * torch.where(motion == GROW, 1.6, 1.0)
    shiny = (scenes.finish == FINISHES.index("shiny"))[..., None]
    decay = torch.where(shiny, 0.11, 0.045) * torch.where(motion == GROW, 1.5, 1.0)
    phase = 2 * math.pi * pitch * since.clamp(max=2)
    attack = (since / 0.0015).clamp(max=1)
    knock = phase.sin() * (-since / decay).exp()
    knock = knock + 0.5 * (2.76 * phase).sin() * (-since / (0.45 * decay)).exp()
    knock = knock + 0.25 * noise * (-since / 0.004).exp()
    heard = 0.5 * attack * torch.where(since.isfinite(), knock, 0.0)

    # Growing glides upwards.
    way = ((t - pace.grow_start) / (pace.grow_end - pace.grow_start)).clamp(0, 1)
    glide = 180.0 * (pace.grow_end - pace.grow_start) * (way + 0.75 * way * way)
    edges = (8 * way * (1 - way)).clamp(max=1)
    rising = 0.1 * edges * (2 * math.pi * glide).sin()
    heard = heard + torch.where(motion == GROW, rising * speed, 0.0)

    # Spins hum, louder twice a turn; orbits sing with a slow vibrato.
    hum = 2 * math.pi * by_size(HUMS) * t
    turn = 2 * math.pi * (t / pace.turn + pace.phase)
    spin = (hum.sin() + 0.6 * (2 * hum).sin() + 0.3 * (3 * hum).sin()) * (
        1 + 0.5 * (2 * turn).sin()
    )
    heard = heard + torch.where(motion == SPIN, 0.08 * spin * speed, 0.0)
    circle = 2 * math.pi * by_size(CIRCLES) * t + 6 * turn.sin()
    orbit = (circle.sin() + 0.3 * (2 * circle).sin()) * (1 + 0.3 * turn.cos())
    heard = heard + torch.where(motion == ORBIT, 0.07 * orbit * speed, 0.0)

    # Rolls rumble, slides hiss, swings whoosh at their lowest.
    low, high, loud = (torch.ones_like(t + pace.turn) for _ in range(3))
    loud = 0 * loud
    for kind, (start, end, level) in NOISES.items():
        low = torch.where(motion == kind, start, low)
        high = torch.where(motion == kind, end, high)
        loud = torch.where(motion == kind, level, loud)
    noisy = band(noise, low[..., :1], high[..., :1].clamp(min=20), rate)
    turning = 1 + 0.35 * (4 * pose.angle).sin()
    shape = torch.where(motion == ROLL, speed * turning, speed)
    shape = torch.where(motion == SWING, speed**6, shape)
    return heard + loud * shape * noisy


def ambience(scenes: Scenes, times: Tensor, noise: Tensor, rate: int) -> Tensor:
    """The background's sound: (B, 2, S)."""
    rows = torch.tensor([AMBIENCES[name] for name in BACKGROUNDS], device=times.device)
    low, high, loud, gusts, every = rows[scenes.background].unsqueeze(-1).unbind(1)
    place = scenes.chance[:, 1, 3, None]
    swell = 1 - gusts * (0.5 + 0.5 * (2 * math.pi * (times / every + place)).cos())
    around = band(noise, low[:, None], high[:, None], rate) * (loud * swell)[:, None]
    kind = scenes.background[:, None]
    insects = torch.where(kind == BACKGROUNDS.index("night"), crickets(times, place), 0.0)
    birds = torch.where(kind == BACKGROUNDS.index("meadow"), birdsong(times, place), 0.0)
    sides = 0.6 + 0.4 * torch.stack([place, 1 - place], 1)
    return around + sides * (insects + birds)[:, None]


def crickets(times: Tensor, place: Tensor) -> Tensor:
    """Groups of three chirps, all 0.7 s."""
    within = (times / 0.7 + place).remainder(1) * 0.7
    chirp = (math.pi * (within / 0.09).remainder(1)).sin() ** 2
    return 0.05 * (within < 0.27) * chirp * (2 * math.pi * 4300 * times).sin()


def birdsong(times: Tensor, place: Tensor) -> Tensor:
    """A call of two falling notes, all 1.1 s."""
    within = (times / 1.1 + place).remainder(1) * 1.1
    note = (within / 0.16).remainder(1)
    pitch = 2 * math.pi * 0.16 * (3100 * note - 400 * note * note)
    return 0.05 * (within < 0.32) * (math.pi * note).sin() ** 2 * pitch.sin()
