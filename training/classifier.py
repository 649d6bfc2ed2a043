"""A judge of clips: which objects and colours move how on what background, and when they bounce.

    python -m training.classifier --folder train --minutes 5

It is trained on the renderer alone, on all combinations, held-out ones too, with pictures
degraded as an autoencoder degrades them. It sees 13 frames of 49 at 192x128 for what is shown and
all 49 at half of that for when things happen.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loop import Loop, Run, command, parse, train
from .onsets import distances, onsets, peaks
from .world import BACKGROUNDS, COLOURS, MOTIONS, OBJECTS, SAMPLE_RATE, Scenes, sample_scenes
from .world import events as true_events
from .world.motion import since_event, standing_places
from .world.picture import picture
from .world.sound import sound

FRAMES, FRAME_RATE, EVERY = 49, 24.0, 4
HEIGHT, WIDTH = 128, 192
CHANNELS = 96
LEAST = 0.35  # of the curve of moments, for an event


def ordered(scenes: Scenes) -> Tensor:
    """The columns in the order in which they are judged: (B, 2).

    Of two that move, the left comes first; before one that rests, the other.
    """
    places = standing_places(scenes)[..., 0]
    rests = scenes.motion[:, 1] == MOTIONS.index("rest")
    swap = (scenes.objects == 2) & ~rests & (places[:, 0] > places[:, 1])
    return torch.stack([swap.long(), 1 - swap.long()], 1)


class Verdict(nn.Module):
    """Logits of what is shown, from 13 frames (B, 3, 13, 128, 192) in [-1, 1].

    objects (B, 2), background (B, 6), and for each of two objects shape, colour and motion
    (B, 2, n).
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, CHANNELS)
        self.frame = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, 1) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.time = nn.ModuleList(
            nn.Conv3d(CHANNELS, CHANNELS, (3, 1, 1), padding=(1, 0, 0)) for _ in "ab"
        )
        frames, rows, columns = 1 + (FRAMES - 1) // EVERY, HEIGHT // 16, WIDTH // 16
        self.where = nn.Parameter(0.02 * torch.randn(CHANNELS, 1, rows, columns))
        self.when = nn.Parameter(0.02 * torch.randn(CHANNELS, frames, 1, 1))
        self.query = nn.Parameter(0.5 * torch.randn(2, CHANNELS))
        self.read = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(CHANNELS, 4, 2 * CHANNELS, 0.0, batch_first=True), 2
        )
        self.shape = nn.Linear(CHANNELS, len(OBJECTS))
        self.colour = nn.Linear(CHANNELS, len(COLOURS))
        self.motion = nn.Linear(CHANNELS, len(MOTIONS))
        self.objects = nn.Linear(2 * CHANNELS, 2)
        self.background = nn.Linear(CHANNELS, len(BACKGROUNDS))

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        batch, frames = video.shape[0], video.shape[2]
        x = video.transpose(1, 2).flatten(0, 1)
        for convolve, norm in zip(self.frame, self.norms, strict=True):
            x = F.silu(norm(convolve(x)))
        x = x.unflatten(0, (batch, frames)).transpose(1, 2)
        x = x + self.where + self.when
        for convolve in self.time:
            x = x + F.silu(convolve(x))
        tokens = x.flatten(2).transpose(1, 2)
        seen = self.read(self.query.expand(batch, -1, -1), tokens)
        return {
            "shape": self.shape(seen),
            "colour": self.colour(seen),
            "motion": self.motion(seen),
            "objects": self.objects(seen.flatten(1)),
            "background": self.background(tokens.mean(1)),
        }


class Moments(nn.Module):
    """A curve (B, F) of logits that peaks at bounces, from frames (B, 3, F, 64, 96)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48)
        self.frame = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, 1) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.time = nn.ModuleList(nn.Conv3d(48, 48, (5, 1, 1), padding=(2, 0, 0)) for _ in "abc")
        self.out = nn.Conv1d(48, 1, 5, padding=2)

    def forward(self, video: Tensor) -> Tensor:
        batch, frames = video.shape[0], video.shape[2]
        x = video.transpose(1, 2).flatten(0, 1)
        for convolve, norm in zip(self.frame, self.norms, strict=True):
            x = F.silu(norm(convolve(x)))
        x = x.unflatten(0, (batch, frames)).transpose(1, 2)
        for convolve in self.time:
            x = x + F.silu(convolve(x))
        curve: Tensor = self.out(x.amax((3, 4)))[:, 0]
        return curve


class Judge(nn.Module):
    """Both, on clips (B, 3, F, H, W) of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.verdict = Verdict()
        self.moments = Moments()

    def forward(self, video: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        video = sized(video.float(), HEIGHT, WIDTH)
        # 13 frames, evenly spread over however many there are.
        chosen = torch.linspace(0, video.shape[2] - 1, 1 + (FRAMES - 1) // EVERY).round().long()
        few = video[:, :, chosen.to(video.device)]
        return self.verdict(few), self.moments(sized(video, HEIGHT // 2, WIDTH // 2))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a judge sees in one clip. Events are in seconds."""

    objects: list[tuple[str, str, str]]  # shape, colour and motion
    background: str
    events: list[float]


@torch.no_grad()
def judged(judge: Judge, video: Tensor, frame_rate: float = FRAME_RATE) -> list[Seen]:
    """What is seen in clips (B, 3, F, H, W) in [-1, 1]."""
    logits, curve = judge(video)
    best = {name: values.argmax(-1).tolist() for name, values in logits.items()}
    seen = []
    for row in range(len(video)):
        objects = [
            (
                OBJECTS[best["shape"][row][column]],
                COLOURS[best["colour"][row][column]],
                MOTIONS[best["motion"][row][column]],
            )
            for column in range(1 + best["objects"][row])
        ]
        moments = peaks(curve[row].sigmoid().tolist(), LEAST, 1 / frame_rate, 0.15)
        seen.append(Seen(objects, BACKGROUNDS[best["background"][row]], moments))
    return seen


def sized(video: Tensor, height: int, width: int) -> Tensor:
    """Each frame at another size."""
    batch, frames = video.shape[0], video.shape[2]
    flat = video.transpose(1, 2).flatten(0, 1)
    shrunk = F.interpolate(flat, (height, width), mode="bilinear", antialias=True)
    resized: Tensor = shrunk.unflatten(0, (batch, frames)).transpose(1, 2)
    return resized


def degraded(video: Tensor, strength: Tensor) -> Tensor:
    """Blurred in space and time, noisy and off in colour, as much as a strength (B,) in [0, 1]."""
    height, width = video.shape[3:]
    share = strength[:, None, None, None, None]
    coarse = sized(sized(video, max(1, height // 4), max(1, width // 4)), height, width)
    padded = F.pad(coarse, (0, 0, 0, 0, 1, 1), mode="replicate")
    slow = (padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]) / 3
    blurred = torch.lerp(video, slow, share)
    tint = torch.randn(len(video), 3, 1, 1, 1, device=video.device)
    noise = torch.randn_like(video)
    return (blurred + share * (0.08 * noise + 0.05 * tint)).clamp(-1, 1)


def targets(scenes: Scenes) -> tuple[dict[str, Tensor], Tensor]:
    """What is to be seen, and the curve (B, F) of its bounces and of what has grown up."""
    order = ordered(scenes)
    named = {name: getattr(scenes, name).gather(1, order) for name in ("shape", "colour", "motion")}
    named |= {"objects": scenes.objects - 1, "background": scenes.background}
    times = (torch.arange(FRAMES, device=order.device) / FRAME_RATE).expand(len(scenes), -1)
    # The nearest event, before or after.
    sizes = torch.linspace(0, 0.1, 21, device=order.device)
    since = since_event(scenes, (times[..., None] + sizes).flatten(1)).amin(1)
    near = (since.unflatten(1, (FRAMES, 21)) - sizes).abs().amin(2)
    before = since_event(scenes, times).amin(1)
    near = torch.minimum(near, before)
    return named, (-((near * FRAME_RATE) ** 2) / 2).exp().nan_to_num(0.0)


def clips(seed: int, count: int, device: torch.device) -> tuple[Scenes, Tensor]:
    """Half of all combinations, half of the held-out ones."""
    half = count - count // 2
    parts = (sample_scenes(half, seed), sample_scenes(count // 2, seed, "heldout"))
    joined = Scenes(
        *(torch.cat([getattr(part, name) for part in parts]) for name in Scenes.__slots__)
    ).to(device)
    times = (torch.arange(FRAMES, device=device) / FRAME_RATE).expand(count, -1)
    return joined, picture(joined, times, HEIGHT, WIDTH)


def shares(judge: Judge, scenes: Scenes, video: Tensor) -> dict[str, float]:
    """How often the judge is right about clips of known scenes, and how late by the picture."""
    order = ordered(scenes)
    right = dict.fromkeys(("objects", "shape", "colour", "motion", "background"), 0)
    count, late = 0, []
    for row, (seen, found) in enumerate(
        zip(judged(judge, video), true_events(scenes, 2.0), strict=True)
    ):
        right["objects"] += len(seen.objects) == int(scenes.objects[row])
        right["background"] += seen.background == BACKGROUNDS[int(scenes.background[row])]
        for place in range(int(scenes.objects[row])):
            column = int(order[row, place])
            count += 1
            if place < len(seen.objects):
                shape, colour, motion = seen.objects[place]
                right["shape"] += shape == OBJECTS[int(scenes.shape[row, column])]
                right["colour"] += colour == COLOURS[int(scenes.colour[row, column])]
                right["motion"] += motion == MOTIONS[int(scenes.motion[row, column])]
        late += distances([time for _, time in found if 0.1 < time < 1.9], seen.events)
    of = {name: len(scenes) if name in ("objects", "background") else count for name in right}
    return {name: right[name] / of[name] for name in right} | {
        "event_ms": 1000 * sum(late) / max(1, len(late))
    }


def trained(run: Run) -> int:
    judge = Judge().to(run.device)
    batch = 2 if run.smoke else 32

    def loss(step: int, _: float) -> Mapping[str, Tensor]:
        scenes, video = clips(1_000_000 + run.seed + step, batch, run.device)
        named, curve = targets(scenes)
        # A third of the clips as they are.
        strength = (1.5 * torch.rand(batch, device=run.device) - 0.5).clamp(min=0)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            logits, moments = judge(degraded(video, strength))
        there = scenes.present().float()
        terms = {}
        for name, wanted in named.items():
            each = F.cross_entropy(
                logits[name].float().flatten(0, -2), wanted.flatten(), reduction="none"
            ).view_as(wanted)
            terms[name] = (each * there).sum() / there.sum() if wanted.dim() == 2 else each.mean()
        terms["moments"] = 3 * F.binary_cross_entropy_with_logits(moments.float(), curve)
        return terms

    def report() -> Mapping[str, float]:
        judge.eval()
        figures: dict[str, float] = {}
        count = 4 if run.smoke else 256
        for name, strength in (("clean", 0.0), ("degraded", 0.7)):
            totals: dict[str, float] = {}
            for part in range(0, count, 64):
                scenes, video = clips(part, min(64, count), run.device)
                hard = torch.full((len(scenes),), strength, device=run.device)
                for key, value in shares(judge, scenes, degraded(video, hard)).items():
                    totals[key] = totals.get(key, 0.0) + value / math.ceil(count / 64)
            figures |= {f"{name}_{key}": value for key, value in totals.items()}
        judge.train()
        return figures

    loop = Loop(learning_rate=1e-3, weight_decay=0.01, reports=60.0)
    return train("classifier", judge, loss, report, loop, run)


def heard_error(count: int, device: torch.device) -> float:
    """Mean milliseconds from true events to onsets in the renderer's own sound."""
    scenes = sample_scenes(count, 0, "heldout")
    begins = torch.zeros(count, device=device)
    found = onsets(sound(scenes, begins, 2 * SAMPLE_RATE), SAMPLE_RATE)
    late = [
        far
        for heard, listed in zip(found, true_events(scenes, 2.0), strict=True)
        for far in distances([time for _, time in listed if 0.1 < time < 1.9], heard)
    ]
    return 1000 * sum(late) / max(1, len(late))


if __name__ == "__main__":
    settings = parse(command(__doc__ or "").parse_args())
    print("onsets of the renderer's sound, ms", round(heard_error(64, settings.device), 1))
    trained(settings)
