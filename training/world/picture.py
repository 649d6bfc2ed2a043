"""Draws scenes: their background, shadows and objects, for whole batches at once."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from training.world.backgrounds import HORIZON, LIGHTS, View, paint_background
from training.world.motion import FLOOR, Poses, camera_shift, poses
from training.world.objects import Surface, surface
from training.world.scenes import BACKGROUNDS, FINISHES, OBJECTS, SWING, Scenes

STAGE = (1.5, 1.0)  # what any picture shows at least, in stage heights
PIXELS_AT_ONCE = {"cuda": 2**24, "cpu": 2**20}

PAINTS = {
    "red": (0.87, 0.1, 0.12),
    "orange": (1.0, 0.5, 0.04),
    "yellow": (0.99, 0.86, 0.1),
    "green": (0.05, 0.6, 0.22),
    "blue": (0.1, 0.3, 0.92),
    "purple": (0.5, 0.14, 0.72),
    "pink": (1.0, 0.47, 0.72),
    "white": (1.0, 1.0, 1.0),
}
LIGHT = (-0.45, -0.66, 0.6)  # from the upper left, towards the viewer
GLINT = (-0.25, -0.37, 0.89)  # halfway between the light and the viewer


def picture(
    scenes: Scenes,
    times: Tensor,
    height: int,
    width: int,
    window: Tensor | None = None,
) -> Tensor:
    """Draw scenes at times (B, T): float32 (B, 3, T, height, width) in [-1, 1].

    A window (B, 4) is the part of the picture that is drawn: left, top, right and bottom, each in
    [0, 1]. Any size shows the whole stage in its middle.
    """
    device = times.device
    scenes = scenes.to(device)
    if window is None:
        window = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(len(scenes), 4)
    drawn = times.new_empty(len(scenes), 3, times.shape[1], height, width)
    pixels = PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cpu"])
    at_once = max(1, pixels // (times.shape[1] * height * width))
    for start in range(0, len(scenes), at_once):
        part = slice(start, start + at_once)
        draw(scenes[part], times[part], window[part].to(device), drawn[part])
    return drawn


def draw(scenes: Scenes, times: Tensor, window: Tensor, image: Tensor) -> None:
    """Draw into an image (B, 3, T, H, W)."""
    view = look(scenes, times, window, image.shape[3], image.shape[4])
    for name, group in groups(scenes.background, BACKGROUNDS):
        part = View(*(each[group] for each in view))
        image[group] = paint_background(name, part).expand_as(image[group])
    pose = poses(scenes, times)
    for column in (0, 1):
        image.mul_(1 - shadow(scenes, pose, view, column))
    (first, covers), (second, hides) = (layer(scenes, pose, view, column) for column in (0, 1))
    # The first object passes before the second, or behind it.
    before = pose.front[:, None, 0, :, None, None]
    image.lerp_(first, covers * ~before)
    image.lerp_(second, hides)
    image.lerp_(first, covers * before)
    image.mul_(2).sub_(1).clamp_(-1, 1)


def objects_mask(scenes: Scenes, times: Tensor, height: int, width: int, window: Tensor) -> Tensor:
    """What of each pixel `picture` covers with objects: float32 (B, 1, T, height, width)."""
    scenes = scenes.to(times.device)
    view, pose = look(scenes, times, window, height, width), poses(scenes, times)
    covers = [layer(scenes, pose, view, column)[1] for column in (0, 1)]
    return torch.maximum(covers[0], covers[1])


def look(scenes: Scenes, times: Tensor, window: Tensor, height: int, width: int) -> View:
    """Where in its stage each pixel of a window looks."""
    # What the whole picture shows, of which the window is a part.
    shown = window[:, 2:] - window[:, :2]
    ratio = (width / shown[:, 0]) / (height / shown[:, 1])
    high = torch.where(ratio < STAGE[0] / STAGE[1], STAGE[0] / ratio, STAGE[1])
    wide = high * ratio
    columns = (torch.arange(width, device=times.device) + 0.5) / width
    rows = (torch.arange(height, device=times.device) + 0.5) / height
    x = (window[:, :1] + shown[:, :1] * columns - 0.5) * wide[:, None]
    y = (window[:, 1:2] + shown[:, 1:] * rows - 0.5) * high[:, None] + 0.5
    x = x[:, None, None, None, :]
    across = camera_shift(scenes, times)[:, None, :, None, None]
    return View(
        far=x + 0.4 * across,
        near=x + across,
        y=y[:, None, None, :, None],
        time=times[:, None, :, None, None],
        pixel=(shown[:, 1] * high / height)[:, None, None, None, None],
        place=scenes.chance[:, 1, 3][:, None, None, None, None],
    )


def groups(kinds: Tensor, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """The rows of every kind that occurs."""
    listed = kinds.tolist()
    for index, name in enumerate(names):
        rows = [row for row, kind in enumerate(listed) if kind == index]
        if rows:
            yield name, torch.tensor(rows, device=kinds.device)


def each_frame(values: Tensor, column: int) -> Tensor:
    """One object's values (B, 2, T) as (B, 1, T, 1, 1)."""
    return values[:, column, None, :, None, None]


def shadow(scenes: Scenes, pose: Poses, view: View, column: int) -> Tensor:
    """How much darker a shadow makes the ground: (B, 1, T, H, W)."""
    radius = each_frame(pose.radius, column)
    lift = (FLOOR - each_frame(pose.y, column) - radius).clamp(min=0)
    wide = radius * (1.05 + 0.6 * lift)
    x = (view.near - each_frame(pose.x, column) - 0.25 * lift) / wide
    y = (view.y - FLOOR + 0.1 * radius) / (0.3 * wide)
    there = scenes.present()[:, column, None, None, None, None]
    dark = 0.5 * there / (1 + 3.5 * lift)
    on_ground = ((view.y - HORIZON) / 0.05).clamp(0, 1)
    # A soft ellipse: 1 in its middle, 0 from its border on.
    return dark * on_ground * (1.25 * (1 - x * x - y * y)).clamp(0, 1)


def layer(scenes: Scenes, pose: Poses, view: View, column: int) -> tuple[Tensor, Tensor]:
    """One object of each scene: its colours (B, 3, T, H, W), and what it covers (B, 1, T, H, W)."""
    frames, height, width = view.near.shape[2], view.y.shape[3], view.near.shape[4]
    colours = view.y.new_zeros(len(scenes), 3, frames, height, width)
    covers = view.y.new_zeros(len(scenes), 1, frames, height, width)
    there = torch.where(scenes.present()[:, column], scenes.shape[:, column], -1)
    for name, group in groups(there, OBJECTS):
        radius, angle, stretch, left, top = (
            each_frame(each[group], column)
            for each in (pose.radius, pose.angle, pose.stretch, pose.x, pose.y)
        )
        dx, dy = view.near[group] - left, view.y[group] - top
        pixel = view.pixel[group]
        # A squashed body keeps its area.
        x, y = dx * stretch / radius, dy / (stretch * radius)
        seen = surface(name, x, y, angle, pixel / radius)
        cover = (0.5 - seen.distance * radius / pixel).clamp(0, 1)
        colour = shade(seen, x, y, scenes[group], column)
        swings = (scenes.motion[group, column] == SWING)[:, None, None, None, None]
        rope = ((0.006 - (angle.cos() * dx + angle.sin() * dy).abs()) / pixel + 0.5).clamp(0, 1)
        rope = rope * (swings & (dy < 0))
        colours[group] = torch.lerp(colour.new_tensor(0.25), colour, cover)
        covers[group] = torch.maximum(cover, rope)
    return colours, covers


def shade(seen: Surface, x: Tensor, y: Tensor, scenes: Scenes, column: int) -> Tensor:
    """The colours (B, 3, T, H, W) of a surface in the light of its scene."""
    # Facets bulge a little, so that light runs over them.
    nx, ny = seen.nx + 0.3 * x, seen.ny + 0.3 * y
    length = (nx * nx + ny * ny + seen.nz * seen.nz).rsqrt()
    towards = (LIGHT[0] * nx + LIGHT[1] * ny + LIGHT[2] * seen.nz) * length
    glint = (GLINT[0] * nx + GLINT[1] * ny + GLINT[2] * seen.nz) * length
    shiny = scenes.finish[:, column, None, None, None, None] == FINISHES.index("shiny")
    rim = 1 - 0.3 * (1 + 5 * seen.distance).clamp(0, 1)
    diffuse = (0.56 + 0.55 * towards.clamp(min=0)) * rim
    gloss = shiny * 0.85 * glint.clamp(min=0) ** 24

    def table(rows: Iterable[tuple[float, float, float]], index: Tensor) -> Tensor:
        return torch.tensor(list(rows), device=x.device)[index][:, :, None, None, None]

    paint = table(PAINTS.values(), scenes.colour[:, column])
    if seen.accent is not None:
        # Lighter, and on white darker.
        light = torch.where(paint.amin(1, keepdim=True) > 0.9, 0.82, 0.55 * paint + 0.45)
        paint = torch.lerp(paint, light, seen.accent)
    lit = paint * diffuse * table(LIGHTS.values(), scenes.background)
    return (lit + gloss).clamp(0, 1)
