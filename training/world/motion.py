"""Where objects are at any time, and when something is heard to happen.

Lengths are in heights of the stage, which is 1.5 wide and 1 high: x is 0 in its middle and grows
to the right, y is 0 at its top and grows downwards. Times are in seconds.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.world.scenes import (
    BOUNCE,
    GROW,
    ORBIT,
    REST,
    ROLL,
    SLIDE,
    SPIN,
    SWING,
    Scenes,
)

FLOOR = 0.85  # y at which objects touch the ground
GRAVITY = 7.0
RADII = (0.09, 0.13, 0.18)  # by size
TRAVEL = 0.45  # rolls and slides go from here on one side to here on the other
PIVOT = -0.12  # y of a swing's pivot


@dataclass(frozen=True, slots=True)
class Poses:
    """Of each scene's objects at T times: float32 (B, 2, T)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor  # clockwise, in radians
    stretch: Tensor  # height by width of a body that an impact squashes: 1 at ease
    speed: Tensor  # of what sounds, about 1 at its greatest
    front: Tensor  # bool: nearer to the viewer than the other object


@dataclass(frozen=True, slots=True)
class Tempo:
    """What a motion's timing follows from: float32 (B, 2, 1) each, in seconds."""

    bounce_height: Tensor
    bounce_period: Tensor
    bounced: Tensor  # how long before time 0 the last bounce was
    travel: Tensor  # how long a roll or a slide takes
    grow_start: Tensor
    grow_end: Tensor
    turn: Tensor  # of a spin or an orbit
    swing_period: Tensor
    phase: Tensor  # of an orbit or a swing, in periods


def tempo(scenes: Scenes) -> Tempo:
    _, pace, phase, delay = (each[..., None] for each in scenes.chance.unbind(2))
    height = 0.2 + 0.2 * pace
    period = (8 * height / GRAVITY).sqrt()
    spins = (scenes.motion == SPIN)[..., None]
    return Tempo(
        bounce_height=height,
        bounce_period=period,
        bounced=phase * period,
        travel=1.7 + 0.5 * pace,
        grow_start=0.1 + 0.2 * delay,
        grow_end=1.1 + 0.5 * pace,
        turn=torch.where(spins, 0.9 + 0.5 * pace, 1.8 + 0.6 * pace),
        swing_period=1.3 + 0.3 * pace,
        phase=phase,
    )


def radii(scenes: Scenes) -> Tensor:
    """Radii at ease: (B, 2, 1)."""
    table = torch.tensor(RADII, device=scenes.size.device)
    return table[scenes.size][..., None] * (0.95 + 0.1 * scenes.chance[..., 3:])


def smooth(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def poses(scenes: Scenes, times: Tensor) -> Poses:
    """Where the objects are at times (B, T)."""
    t = times[:, None, :]
    pace = tempo(scenes)
    size = radii(scenes)
    motion = scenes.motion[..., None]
    direction = scenes.direction[..., None].float()
    home = standing_places(scenes)

    def when(kind: int, value: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(motion == kind, value, otherwise)

    since = (t + pace.bounced).remainder(pace.bounce_period)
    flight = since / pace.bounce_period
    lift = 4 * pace.bounce_height * flight * (1 - flight)
    near = torch.minimum(since, pace.bounce_period - since)
    squashed = 1 - 0.16 * (-((near / 0.035) ** 2)).exp()

    way = (t / pace.travel).clamp(0, 1)
    path = direction * TRAVEL * (2 * smooth(way) - 1)
    travel_speed = 4 * way * (1 - way)

    turned = 2 * math.pi * (direction * t / pace.turn + pace.phase)
    grown = smooth((t - pace.grow_start) / (pace.grow_end - pace.grow_start))
    growth = 0.4 + 0.85 * grown
    growing = (t > pace.grow_start) & (t < pace.grow_end)

    swing = 2 * math.pi * (t / pace.swing_period + pace.phase)
    wide = torch.where(scenes.objects == 2, 0.27, 0.55)[:, None, None]
    hang = wide * swing.sin()
    length = 0.58 - PIVOT - 0.3 * size

    x = home.expand_as(t + size)
    x = when(ROLL, path, when(SLIDE, path, x))
    x = when(ORBIT, 0.4 * turned.cos(), x)
    x = when(SWING, home + length * hang.sin(), x)
    size_now = when(GROW, size * growth, size)
    size_now = when(ORBIT, size * (0.8 + 0.14 * turned.sin()), size_now)
    y = FLOOR - size_now
    y = when(BOUNCE, FLOOR - size * squashed - lift, y)
    y = when(SPIN, FLOOR - 1.35 * size - 0.08, y)
    y = when(ORBIT, 0.6 + 0.12 * turned.sin(), y)
    y = when(SWING, PIVOT + length * hang.cos(), y)
    # What another circles floats in its middle.
    circled = (scenes.motion[:, :1] == ORBIT)[..., None] & (motion == REST)
    y = torch.where(circled, 0.58, y)
    none = torch.zeros_like(x)
    angle = when(ROLL, path / size, none)
    angle = when(SPIN, turned, angle)
    angle = when(SWING, -hang, angle)
    speed = when(ROLL, travel_speed, when(SLIDE, travel_speed, none))
    speed = when(GROW, growing.float(), speed)
    speed = when(SPIN, none + 1, when(ORBIT, none + 1, speed))
    speed = when(SWING, swing.cos().abs(), speed)
    first = torch.arange(2, device=t.device)[:, None] == 0
    front = torch.where(motion == ORBIT, turned.sin() > 0, first.expand_as(x))
    ones = none + 1
    return Poses(x, y, size_now, angle, when(BOUNCE, squashed, ones), speed, front)


def standing_places(scenes: Scenes) -> Tensor:
    """The x at which objects stand that do not travel: (B, 2, 1)."""
    chance = scenes.chance[..., :1]
    left_right = torch.stack([scenes.side, -scenes.side], 1)[..., None]
    beside = 0.36 * left_right + 0.08 * (chance - 0.5)
    among_travellers = torch.isin(
        scenes.motion[:, 0], torch.tensor([ROLL, ORBIT, SLIDE], device=scenes.motion.device)
    )
    pair = torch.where(among_travellers[:, None, None], 0.0, beside)
    return torch.where(scenes.objects[:, None, None] == 2, pair, 0.5 * (chance - 0.5))


def camera_shift(scenes: Scenes, times: Tensor) -> Tensor:
    """How far the camera has gone to the right at times (B, T), of its middle at 1 s."""
    direction = (scenes.camera == 2).float() - (scenes.camera == 1).float()
    return direction[:, None] * 0.17 * (times - 1).tanh()


def since_event(scenes: Scenes, times: Tensor) -> Tensor:
    """Seconds since an object's last event, infinite before its first: (B, 2, T).

    An event is a bounce, or the moment at which something has grown up.
    """
    t = times[:, None, :]
    pace = tempo(scenes)
    motion = scenes.motion[..., None]
    since = torch.full_like(t + pace.phase, math.inf)
    since = torch.where(motion == GROW, t - pace.grow_end, since)
    since = torch.where(since < 0, math.inf, since)
    bounced = (t + pace.bounced).remainder(pace.bounce_period)
    since = torch.where(motion == BOUNCE, bounced, since)
    return torch.where(scenes.present()[..., None], since, math.inf)


def events(scenes: Scenes, duration: float) -> list[list[tuple[int, float]]]:
    """Each scene's events within the duration, by time: an object's column, and seconds."""
    pace = tempo(scenes)
    listed = []
    for row in range(len(scenes)):
        found = []
        for column in range(int(scenes.objects[row])):
            motion = int(scenes.motion[row, column])
            if motion == GROW:
                found.append((column, float(pace.grow_end[row, column])))
            elif motion == BOUNCE:
                period = float(pace.bounce_period[row, column])
                first = period - float(pace.bounced[row, column])
                count = max(0, math.ceil((duration - first) / period))
                found.extend((column, first + k * period) for k in range(count))
        listed.append(sorted((e for e in found if e[1] < duration), key=lambda e: e[1]))
    return listed
