"""The painted grounds that scenes take place on.

Every painter gets the far coordinate (what a pan moves little), the near one and the height, in
stage heights, and the time; it gives colours in [0, 1] that broadcast to (B, 3, F, H, W).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.world.scenes import BACKGROUNDS

HORIZON = 0.62


class View(NamedTuple):
    far: Tensor  # (B, 1, F, 1, W)
    near: Tensor  # (B, 1, F, 1, W)
    y: Tensor  # (B, 1, 1, H, 1)
    time: Tensor  # (B, 1, F, 1, 1)
    pixel: Tensor  # (B, 1, 1, 1, 1) a pixel's width
    place: Tensor  # (B, 1, 1, 1, 1) in [0, 1): where the painting begins


# The light that falls on objects there: red, green, blue.
LIGHTS = {
    "meadow": (1.0, 1.0, 1.0),
    "beach": (1.03, 1.0, 0.96),
    "dusk": (1.0, 0.88, 0.86),
    "night": (0.8, 0.84, 0.98),
    "checkerboard": (1.0, 0.98, 0.95),
    "snow": (0.98, 1.0, 1.03),
}


def paint_background(name: str, view: View) -> Tensor:
    match name:
        case "meadow":
            return meadow(view)
        case "beach":
            return beach(view)
        case "dusk":
            return dusk(view)
        case "night":
            return night(view)
        case "checkerboard":
            return checkerboard(view)
        case "snow":
            return snow(view)
    raise ValueError(f"no background is called {name!r}; there are {', '.join(BACKGROUNDS)}")


def rgb(red: float, green: float, blue: float, like: Tensor) -> Tensor:
    return torch.tensor([red, green, blue], dtype=like.dtype, device=like.device).view(
        1, 3, 1, 1, 1
    )


def gradient(y: Tensor, *stops: tuple[float, tuple[float, float, float]]) -> Tensor:
    """Colours between stops at heights y."""
    (start, colour), *rest = stops
    painted = rgb(*colour, y) + torch.zeros_like(y)
    for end, following in rest:
        share = ((y - start) / (end - start)).clamp(0, 1)
        painted = torch.lerp(painted, rgb(*following, y), share)
        start = end
    return painted


def below(edge: Tensor | float, view: View) -> Tensor:
    """How much of a pixel lies below an edge."""
    return ((view.y - edge) / view.pixel + 0.5).clamp(0, 1)


def disc(x: Tensor, y: Tensor, radius: float, pixel: Tensor) -> Tensor:
    return ((radius - (x * x + y * y).sqrt()) / pixel + 0.5).clamp(0, 1)


def puffs(view: View, speed: float) -> Tensor:
    """Two soft clouds that drift."""
    x = view.far - speed * view.time
    total = torch.zeros_like(view.y)
    for offset, height, wide in ((-0.75, 0.16, 1.0), (0.15, 0.26, 0.8)):
        middle = x - offset - 0.6 * view.place
        for dx, dy, size in ((0.0, 0.0, 0.11), (0.11, 0.02, 0.09), (-0.1, 0.025, 0.08)):
            far = ((middle - wide * dx) / (1.3 * size)) ** 2 + (
                (view.y - height - dy) / (0.5 * size)
            ) ** 2
            total = total + (-far).exp()
    return (1.4 * total).clamp(max=0.9)


def meadow(view: View) -> Tensor:
    image = gradient(view.y, (0.0, (0.36, 0.62, 0.92)), (HORIZON, (0.82, 0.92, 0.98)))
    image = torch.lerp(image, rgb(1, 1, 1, view.y), puffs(view, 0.02))
    hill = HORIZON - 0.09 - 0.05 * (3.1 * view.far + 6 * view.place).sin()
    image = torch.lerp(image, rgb(0.45, 0.66, 0.5, view.y), below(hill, view))
    edge = HORIZON - 0.01 * (5 * view.near).sin()
    grass = gradient(view.y, (HORIZON, (0.5, 0.72, 0.34)), (1.05, (0.3, 0.55, 0.2)))
    depth = (view.y - HORIZON + 0.1).clamp(min=0.06)
    grass = grass * (1 + 0.06 * (1.3 * view.near / depth).sin())
    return torch.lerp(image, grass, below(edge, view))


def beach(view: View) -> Tensor:
    shore = HORIZON + 0.08
    image = gradient(view.y, (0.0, (0.45, 0.78, 0.93)), (0.46, (0.93, 0.97, 0.95)))
    sea = gradient(view.y, (0.46, (0.1, 0.42, 0.66)), (shore, (0.3, 0.72, 0.76)))
    depth = (view.y - 0.4).clamp(min=0.03)
    ripple = (1.6 / depth - 2.2 * view.time + 1.5 * (2.5 * view.far).sin()).sin()
    sea = sea + 0.05 * ripple
    image = torch.lerp(image, sea, below(0.46, view))
    tide = shore + 0.018 * (2 * math.pi * (view.time / 3 + view.place)).sin()
    edge = tide + 0.012 * (7 * view.near + 6 * view.place).sin()
    sand = gradient(view.y, (shore, (0.93, 0.84, 0.64)), (1.05, (0.82, 0.69, 0.46)))
    foam = (-(((view.y - edge) / 0.012) ** 2)).exp()
    image = torch.lerp(image, sand, below(edge, view))
    return torch.lerp(image, rgb(1, 1, 1, view.y), 0.85 * foam)


def dusk(view: View) -> Tensor:
    image = gradient(
        view.y,
        (0.0, (0.24, 0.17, 0.42)),
        (0.35, (0.75, 0.36, 0.46)),
        (HORIZON, (0.99, 0.72, 0.42)),
    )
    x, y = view.far - 0.9 * (view.place - 0.5), view.y - 0.5
    glow = (-(x * x + y * y) / 0.05).exp()
    image = torch.lerp(image, rgb(1, 0.85, 0.55, y), 0.5 * glow)
    image = torch.lerp(image, rgb(1, 0.93, 0.72, y), disc(x, y, 0.085, view.pixel))
    ridge = HORIZON - 0.06 - 0.04 * (4 * view.far + 9 * view.place).sin() * (1.7 * view.far).cos()
    image = torch.lerp(image, rgb(0.38, 0.22, 0.4, y), below(ridge, view))
    ground = gradient(view.y, (HORIZON, (0.44, 0.29, 0.34)), (1.05, (0.25, 0.16, 0.25)))
    return torch.lerp(image, ground, below(HORIZON, view))


def night(view: View) -> Tensor:
    image = gradient(view.y, (0.0, (0.03, 0.05, 0.17)), (HORIZON, (0.14, 0.2, 0.4)))
    # A star in every cell, moved by a hash of the cell.
    cell = 0.21
    column = ((view.far + 2 * view.place) / cell).floor()
    row = (view.y / cell).floor()
    hashed = (column * 12.99 + row * 78.23).sin() * 43.7
    dx = (view.far + 2 * view.place) / cell - column - 0.2 - 0.6 * hashed.frac().abs()
    dy = view.y / cell - row - 0.2 - 0.6 * (hashed * 3.7).frac().abs()
    bright = 0.4 + 0.6 * (hashed * 7.3).frac().abs()
    stars = bright * (-(dx * dx + dy * dy) / 0.0016).exp()
    image = torch.lerp(image, rgb(0.95, 0.95, 1, view.y), stars)
    x, y = view.far - 1.1 * (view.place - 0.5), view.y - 0.17
    image = image + 0.22 * (-(x * x + y * y) / 0.025).exp()
    image = torch.lerp(image, rgb(0.97, 0.95, 0.84, y), disc(x, y, 0.07, view.pixel))
    ridge = HORIZON - 0.03 - 0.03 * (4.4 * view.far + 9 * view.place).sin()
    image = torch.lerp(image, rgb(0.06, 0.09, 0.2, y), below(ridge, view))
    ground = gradient(view.y, (HORIZON, (0.14, 0.19, 0.3)), (1.05, (0.09, 0.13, 0.21)))
    return torch.lerp(image, ground, below(HORIZON, view))


def checkerboard(view: View) -> Tensor:
    image = gradient(view.y, (0.0, (0.66, 0.7, 0.74)), (HORIZON, (0.86, 0.86, 0.84)))
    # Tiles in perspective; their contrast fades where they get narrower than pixels.
    depth = (view.y - HORIZON + 0.09).clamp(min=0.09)
    across, away = 1.1 * view.near / depth + view.place, 0.55 / depth
    soft_across, soft_away = 1.1 * view.pixel / depth, 0.55 * view.pixel / depth**2
    wave = square(across, soft_across) * square(away, soft_away)
    floor = torch.lerp(rgb(0.4, 0.42, 0.47, view.y), rgb(0.9, 0.89, 0.86, view.y), 0.5 + 0.5 * wave)
    floor = floor * (0.8 + 0.5 * (view.y - HORIZON)).clamp(0.8, 1)
    image = torch.lerp(image, floor, below(HORIZON, view))
    skirting = below(HORIZON - 0.025, view) - below(HORIZON, view)
    return torch.lerp(image, rgb(0.96, 0.96, 0.95, view.y), skirting)


def square(x: Tensor, soft: Tensor) -> Tensor:
    """A square wave of period 2 between -1 and 1 whose edges are as wide as a pixel."""
    return ((math.pi * x).sin() / (math.pi * soft) * 2).clamp(-1, 1)


def snow(view: View) -> Tensor:
    image = gradient(view.y, (0.0, (0.62, 0.74, 0.86)), (HORIZON, (0.9, 0.94, 0.97)))
    peak = HORIZON - 0.2 + 0.32 * ((view.far + view.place).remainder(0.9) - 0.45).abs()
    image = torch.lerp(image, rgb(0.7, 0.78, 0.88, view.y), below(peak, view))
    for offset, high in ((-0.62, 0.17), (-0.47, 0.13), (0.52, 0.16)):
        x = view.far - offset - 0.3 * (view.place - 0.5)
        down = view.y - (HORIZON + 0.01 - high)
        inside = (0.32 * down - x.abs()) / view.pixel + 0.5
        tree = inside.clamp(0, 1) * below(HORIZON + 0.01 - high, view)
        image = torch.lerp(image, rgb(0.2, 0.36, 0.34, view.y), tree)
    edge = HORIZON + 0.012 * (4 * view.near + 6 * view.place).sin()
    ground = gradient(view.y, (HORIZON, (0.88, 0.92, 0.97)), (1.05, (0.74, 0.81, 0.91)))
    return torch.lerp(image, ground, below(edge, view))
