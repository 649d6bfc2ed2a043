"""The objects' surfaces: outline, normals and pattern at every pixel.

Coordinates are in radii about an object's centre, x to the right, y downwards, z to the viewer.
Outlines are signed distances, negative inside.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.world.scenes import OBJECTS


class Surface(NamedTuple):
    distance: Tensor
    nx: Tensor  # the normal, of any length
    ny: Tensor
    nz: Tensor | float
    accent: Tensor | None  # 0 to 1: how much of the lighter second colour


def surface(name: str, x: Tensor, y: Tensor, angle: Tensor, pixel: Tensor) -> Surface:
    """The surface of an object that is turned by an angle; a pixel's width is in radii."""
    match name:
        case "ball":
            return ball(x, y, angle, pixel)
        case "ring":
            return ring(x, y, angle, pixel)
        case "star":
            return star(x, y, angle)
        case "cube":
            return cube(x, y, angle)
        case "heart":
            return heart(x, y, angle)
        case "diamond":
            return diamond(x, y, angle)
    raise ValueError(f"no object is called {name!r}; there are {', '.join(OBJECTS)}")


def stripes(count: int, theta: Tensor, radius: Tensor, pixel: Tensor) -> Tensor:
    """Sectors about the centre, every other one 1, with soft borders."""
    return ((count * theta).sin() * radius / (count * pixel) + 0.5).clamp(0, 1)


def ball(x: Tensor, y: Tensor, angle: Tensor, pixel: Tensor) -> Surface:
    square = x * x + y * y
    radius = square.sqrt()
    z = (1 - square).clamp(min=0).sqrt()
    accent = stripes(3, torch.atan2(y, x) - angle, radius, pixel)
    return Surface(radius - 1, x, y, z, accent)


def ring(x: Tensor, y: Tensor, angle: Tensor, pixel: Tensor) -> Surface:
    middle, width = 0.74, 0.28
    radius = (x * x + y * y).sqrt().clamp(min=1e-3)
    across = (radius - middle) / width
    accent = stripes(4, torch.atan2(y, x) - angle, radius, pixel)
    z = (1 - across * across).clamp(min=0).sqrt()
    return Surface((across.abs() - 1) * width, across * x / radius, across * y / radius, z, accent)


def star(x: Tensor, y: Tensor, angle: Tensor) -> Surface:
    """Five points, each a ridge between two facets."""
    tip, inner, sector = 1.15, 0.52, 2 * math.pi / 5
    theta = torch.atan2(y, x) - angle + math.pi / 2
    radius = (x * x + y * y).sqrt()
    number = (theta / sector).round()
    within = theta - number * sector
    # The edge from a tip to the next inner corner.
    ex, ey = inner * math.cos(sector / 2) - tip, inner * math.sin(sector / 2)
    slope = math.atan2(-ex, ey)
    distance = radius * (within.abs() - slope).cos() - tip * math.cos(slope)
    normal = number * sector + slope * within.sign() + angle - math.pi / 2
    return Surface(distance, normal.cos(), normal.sin(), 0.9, None)


def cube(x: Tensor, y: Tensor, angle: Tensor) -> Surface:
    """Three faces, seen along a diagonal."""
    sector = math.pi / 3
    theta = torch.atan2(y, x) - angle
    radius = (x * x + y * y).sqrt()
    # Corners point up and down: the hexagon's edges face 0, 60, ... degrees.
    number = (theta / sector).round()
    distance = radius * (theta - number * sector).cos() - 1.08 * math.cos(sector / 2)
    face = ((theta + math.pi / 2) / (2 * sector)).round()
    normal = face * 2 * sector - math.pi / 2 + angle
    return Surface(distance, normal.cos(), normal.sin(), 0.7, None)


def heart(x: Tensor, y: Tensor, angle: Tensor) -> Surface:
    """A cushion: its normal leans outwards towards the rim."""
    cos, sin = angle.cos(), angle.sin()
    scale = 1.75
    # In a frame where the heart stands on its tip at (0, 0) and x is folded.
    u = (cos * x + sin * y) / scale
    v = -(cos * y - sin * x) / scale + 0.57
    side = torch.where(u < 0, -1.0, 1.0)
    u = u.abs()
    lobe = u + v > 1
    # Outside of the lobe the nearest point is on the straight side or at the notch.
    along = 0.5 * (u + v).clamp(min=0)
    to_side, to_notch = (u - along) ** 2 + (v - along) ** 2, u * u + (v - 1) ** 2
    notch = to_notch < to_side
    gu = torch.where(lobe, u - 0.25, torch.where(notch, u, u - along))
    gv = torch.where(lobe, v - 0.75, torch.where(notch, v - 1, v - along))
    length = (gu * gu + gv * gv).sqrt().clamp(min=1e-4)
    sign = torch.where(u > v, 1.0, -1.0)
    distance = torch.where(lobe, length - math.sqrt(2) / 4, length * sign)
    outwards = torch.where(lobe, 1.0, sign) / length
    lean = (1 + distance / 0.3).clamp(0, 1)
    gu, gv = gu * outwards * lean * side, -gv * outwards * lean
    z = (1.02 - lean * lean).clamp(min=0).sqrt()
    return Surface(distance * scale, cos * gu - sin * gv, sin * gu + cos * gv, z, None)


def diamond(x: Tensor, y: Tensor, angle: Tensor) -> Surface:
    """A cut stone: four facets about a table of the same outline."""
    cos, sin = angle.cos(), angle.sin()
    u, v = cos * x + sin * y, cos * y - sin * x
    wide, high = 0.82, 1.1
    length = math.hypot(wide, high)
    distance = (u.abs() * high + v.abs() * wide - wide * high) / length
    facet = (distance > -0.27).float()
    gu, gv = u.sign() * high / length * facet, v.sign() * wide / length * facet
    return Surface(distance, cos * gu - sin * gv, sin * gu + cos * gv, 0.8, None)
