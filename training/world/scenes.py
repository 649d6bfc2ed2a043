"""What a clip shows, as data: objects, their colours and motions, the background, the camera."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

OBJECTS = ("ball", "cube", "star", "ring", "heart", "diamond")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "medium", "large")
FINISHES = ("matte", "shiny")
MOTIONS = ("bounce", "roll", "orbit", "spin", "slide", "grow", "swing", "rest")
BACKGROUNDS = ("meadow", "beach", "dusk", "night", "checkerboard", "snow")
CAMERAS = ("still", "left", "right")

BOUNCE, ROLL, ORBIT, SPIN, SLIDE, GROW, SWING, REST = range(len(MOTIONS))
BESIDE_ANOTHER = (BOUNCE, SPIN, GROW, SWING)  # what needs no more than half the picture

# Never together in the split "train"; each scene of "heldout" shows one of them.
HELD_OUT_COLOURS = {
    "ball": "purple",
    "cube": "yellow",
    "star": "green",
    "ring": "red",
    "heart": "blue",
    "diamond": "orange",
}
HELD_OUT_MOTIONS = {
    "ball": "swing",
    "cube": "orbit",
    "star": "bounce",
    "ring": "grow",
    "heart": "roll",
    "diamond": "spin",
}

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Scenes:
    """A batch of scenes. Rows are scenes, columns their first and second object.

    Whole numbers index the tuples of names above.
    """

    objects: Tensor  # (B,) 1 or 2
    shape: Tensor  # (B, 2)
    colour: Tensor  # (B, 2)
    size: Tensor  # (B, 2)
    finish: Tensor  # (B, 2)
    motion: Tensor  # (B, 2)
    direction: Tensor  # (B, 2) -1 to the left or anticlockwise, 1 to the right or clockwise
    side: Tensor  # (B,) -1 if the first of two stands on the left, 1 if on the right
    background: Tensor  # (B,)
    camera: Tensor  # (B,)
    chance: Tensor  # (B, 2, 4) float32 in [0, 1): places, speeds and phases
    seed: Tensor  # (B,) of the noise in the sound

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, rows: slice | list[int] | Tensor) -> "Scenes":
        return Scenes(*(getattr(self, each.name)[rows] for each in fields(self)))

    def to(self, device: torch.device | str) -> "Scenes":
        return Scenes(*(getattr(self, each.name).to(device) for each in fields(self)))

    def present(self) -> Tensor:
        """Whether a column's object is there: bool (B, 2)."""
        return torch.arange(2, device=self.objects.device) < self.objects[:, None]


def held_out_pairs() -> tuple[Tensor, Tensor]:
    """Which (object, colour) and (object, motion) are held out: bool tables."""
    colours = torch.zeros(len(OBJECTS), len(COLOURS), dtype=torch.bool)
    motions = torch.zeros(len(OBJECTS), len(MOTIONS), dtype=torch.bool)
    for row, name in enumerate(OBJECTS):
        colours[row, COLOURS.index(HELD_OUT_COLOURS[name])] = True
        motions[row, MOTIONS.index(HELD_OUT_MOTIONS[name])] = True
    return colours, motions


def is_held_out(scenes: Scenes) -> Tensor:
    """Whether a scene shows a held-out pair: bool (B,)."""
    colours, motions = held_out_pairs()
    shape = scenes.shape.cpu()
    each = colours[shape, scenes.colour.cpu()] | motions[shape, scenes.motion.cpu()]
    return (each & scenes.present().cpu()).any(1)


def sample_scenes(count: int, seed: int, split: Split = "train") -> Scenes:
    """Draw scenes on the CPU; the first n of a seed are the same however many are drawn."""
    if split not in ("train", "heldout"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'heldout'")
    generator = torch.Generator().manual_seed(2 * seed + (split == "heldout"))
    draws = torch.rand(count, 32, generator=generator, dtype=torch.float64)
    column = iter(draws.unbind(1))

    def pick(weights: Tensor) -> Tensor:
        """An index by weights (..., n) for each scene."""
        ends = weights.double().expand(count, -1).cumsum(1)
        return (next(column)[:, None] * ends[:, -1:] >= ends).sum(1).clamp(max=ends.shape[1] - 1)

    def even(n: int) -> Tensor:
        return pick(torch.ones(n))

    objects = 1 + pick(torch.tensor([2.0, 1.0]))
    held_colours, held_motions = held_out_pairs()
    shape = torch.stack([even(len(OBJECTS)), even(len(OBJECTS))], 1)
    by_colour, by_motion = ~held_colours[shape], ~held_motions[shape]
    if split == "heldout":
        # The first object shows a held-out colour, a held-out motion, or both.
        which = even(3)[:, None]
        by_colour[:, 0] = torch.where(which != 1, held_colours[shape[:, 0]], by_colour[:, 0])
        by_motion[:, 0] = torch.where(which != 0, held_motions[shape[:, 0]], by_motion[:, 0])
    moving = torch.arange(len(MOTIONS)) != REST
    first = pick(by_motion[:, 0] & moving)
    # Beside an object that travels or circles, another rests.
    beside = torch.zeros(len(MOTIONS), dtype=torch.bool)
    beside[list(BESIDE_ANOTHER)] = True
    alone = torch.zeros(len(MOTIONS), dtype=torch.bool)
    alone[REST] = True
    second = pick(torch.where(beside[first][:, None], by_motion[:, 1] & beside, alone))
    colour = pick(by_colour[:, 0])
    # Two objects never share a colour.
    other = by_colour[:, 1] & (torch.arange(len(COLOURS)) != colour[:, None])
    return Scenes(
        objects=objects,
        shape=shape,
        colour=torch.stack([colour, pick(other)], 1),
        size=torch.stack([even(len(SIZES)), even(len(SIZES))], 1),
        finish=torch.stack([even(len(FINISHES)), even(len(FINISHES))], 1),
        motion=torch.stack([first, second], 1),
        direction=2 * torch.stack([even(2), even(2)], 1) - 1,
        side=2 * even(2) - 1,
        background=even(len(BACKGROUNDS)),
        camera=pick(torch.tensor([2.0, 1.0, 1.0])),
        chance=torch.stack([next(column) for _ in range(8)], 1).float().view(count, 2, 4),
        seed=(next(column) * 2**31).long(),
    )
