"""How well a model of the world in `training/world` shows its prompts: a table, in Markdown.

    python benchmarks/quality.py --model demo-model --judge train/classifier.safetensors
    python benchmarks/quality.py ... --cases steps-4 steps-8 guidance-off --prompts 20

The prompts are of held-out scenes. What the videos show is judged by a classifier that was trained
on the renderer alone; the first row is its judgement of the renderer's own clips of these prompts,
which is the best that a model can get. Columns: the share of videos with the right objects,
colours, motion and background; of what is seen to happen, how far the nearest onset in the sound
is, in ms on average, and how far it is from another video's sound, which is chance; how close the
first frame of image-to-video is to its image, in dB; seconds a video; and of the modes, whether
the latents of all videos are those of the first case, bit for bit.
"""

import argparse
import hashlib
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from entracte import Engine, ImageCondition, Request, Residency
from entracte.recipes import Guidance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.classifier import Judge, Seen, judged, ordered
from training.loop import load_weights
from training.onsets import distances, onsets
from training.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    OBJECTS,
    SAMPLE_RATE,
    Scenes,
    captions,
    render,
    sample_scenes,
)

FRAME_RATE = 24.0
OFF = Guidance()


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table: what differs from the defaults.

    lora: the strength of the distilled LoRA, if not the model's own. enlarge: made at half the
    size, and enlarged as a picture. first: from the first image of the renderer's clip.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    residency: Residency = field(default_factory=Residency)
    lora: float | None = None
    enlarge: bool = False
    first: bool = False


CASES: Mapping[str, Case] = {
    "default": Case(),
    "snapshot": Case(residency=Residency(mode="snapshot")),
    "fused": Case(residency=Residency(mode="fused")),
    "dynamic": Case(residency=Residency(mode="dynamic")),
    "original": Case(residency=Residency(mode="original")),
    "guidance-off": Case({"video_guidance": OFF, "audio_guidance": OFF}),
    **{f"steps-{n}": Case({"num_inference_steps": n}) for n in (4, 6, 8, 12, 20, 30)},
    **{f"lora-{strength}": Case(lora=strength) for strength in (0.0, 0.5, 1.0, 1.5)},
    "image": Case(first=True),
    # Stage 1 enlarged, against which stage 2 is to be seen; and the whole in one act.
    "enlarged": Case({"pipeline": "one-stage"}, enlarge=True),
    "one-stage": Case({"pipeline": "one-stage"}),
    "hq": Case({"pipeline": "hq"}),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A video to be judged: uint8 (F, H, W, 3), its sound (2, samples), and how it was made."""

    frames: Tensor
    sound: Tensor
    sample_rate: int
    seconds: float
    digest: str
    psnr: float | None = None


def scored(scenes: Scenes, row: int, seen: Seen) -> dict[str, bool]:
    """What a clip shows rightly: every object of its scene, in the order of the judge."""
    order = ordered(scenes[row : row + 1])[0].tolist()
    columns = order[: int(scenes.objects[row])]
    wanted = [
        (
            OBJECTS[int(scenes.shape[row, column])],
            COLOURS[int(scenes.colour[row, column])],
            MOTIONS[int(scenes.motion[row, column])],
        )
        for column in columns
    ]
    kinds = ("object", "colour", "motion")
    right = {
        kind: [each[place] for each in wanted] == [each[place] for each in seen.objects]
        for place, kind in enumerate(kinds)
    }
    background = BACKGROUNDS[int(scenes.background[row])]
    return right | {"background": seen.background == background}


def sharpness(video: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels, of 255: a picture's detail."""
    values = video.float()
    down, across = values.diff(dim=1).abs().mean(), values.diff(dim=2).abs().mean()
    return float(down + across) / 2


def rated(judge: Judge, scenes: Scenes, clips: Sequence[Clip]) -> dict[str, float]:
    """The figures of a row. NaN where nothing is seen to happen."""
    device = next(judge.parameters()).device
    shares = dict.fromkeys(("object", "colour", "motion", "background"), 0.0)
    events, heard = [], []
    for row, clip in enumerate(clips):
        video = clip.frames.to(device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        (seen,) = judged(judge, video, FRAME_RATE)
        for kind, right in scored(scenes, row, seen).items():
            shares[kind] += right / len(clips)
        length = len(clip.frames) / FRAME_RATE
        events.append([each for each in seen.events if 0.1 < each < length - 0.1])
        heard += onsets(clip.sound[None], clip.sample_rate)
    late = [far for row, found in enumerate(events) for far in distances(found, heard[row])]
    chance = [far for row, found in enumerate(events) for far in distances(found, heard[row - 1])]
    return shares | {
        "onset ms": mean(late) * 1000,
        "chance ms": mean(chance) * 1000,
        "events": len(late) / len(clips),
        "sharpness": mean([sharpness(clip.frames) for clip in clips]),
        "first frame dB": mean([clip.psnr for clip in clips if clip.psnr is not None]),
        "seconds": mean([clip.seconds for clip in clips]),
    }


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Of uint8 pictures, in dB."""
    error = (made.float() - wanted.float()).square().mean().clamp(min=1e-3)
    return float(10 * torch.log10(255**2 / error))


def rendered(scenes: Scenes, size: tuple[int, int], frames: int) -> list[Clip]:
    """What the prompts mean."""
    clips = []
    for row in range(len(scenes)):
        video, sound = render(scenes[row : row + 1], frames, *size)
        pixels = ((video[0] + 1) * 127.5).round().byte().permute(1, 2, 3, 0)
        clips.append(Clip(pixels, sound[0], SAMPLE_RATE, float("nan"), ""))
    return clips


def made(
    engine: Engine,
    case: Case,
    prompts: Iterable[str],
    size: tuple[int, int],
    frames: int,
    meant: Sequence[Clip],
    defaults: Mapping[str, Any],
) -> list[Clip]:
    """A video a prompt."""
    height, width = (side // 2 if case.enlarge else side for side in size)
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for row, prompt in enumerate(prompts):
            values = {**defaults, **case.fields}
            if case.first:
                path = Path(folder) / f"{row}.png"
                Image.fromarray(meant[row].frames[0].numpy()).save(path)
                values["images"] = [ImageCondition(path, crf=0)]
            request = Request(
                prompt, height=height, width=width, num_frames=frames, seed=row, **values
            )
            if not clips:
                engine.load(request)
            begin = time.perf_counter()
            result = engine.generate(request)
            seconds = time.perf_counter() - begin
            assert result.frames is not None
            pixels = result.frames.cpu()
            if case.enlarge:
                small = pixels.permute(0, 3, 1, 2).float()
                large = F.interpolate(small, size, mode="bicubic", antialias=True)
                pixels = large.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
            digest = hashlib.sha256()
            for name in sorted(result.latents):
                digest.update(result.latents[name].contiguous().view(torch.uint8).numpy().data)
            near = psnr(pixels[0], meant[row].frames[0]) if case.first else None
            sound = result.audio.cpu().float()
            clips.append(Clip(pixels, sound, result.sample_rate, seconds, digest.hexdigest(), near))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True, help="weights of training.classifier")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--size", default="384x256")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--steps", type=int, help="of the cases that do not say it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    judge = Judge().to(given.device).eval()
    load_weights(given.judge, judge)
    scenes = sample_scenes(given.prompts, 0, "heldout")
    prompts = captions(scenes, 0)
    defaults = {} if given.steps is None else {"num_inference_steps": given.steps}
    card = torch.cuda.get_device_name() if given.device.startswith("cuda") else platform.machine()
    print(f"`{' '.join(sys.argv)}`, {card}, torch {torch.__version__}\n")
    meant = rendered(scenes, (height, width), given.frames)
    figures = rated(judge, scenes, meant)
    print("| case |", " | ".join(figures), "| same bits |")
    print("|---|" + "---|" * (len(figures) + 1))
    line("the renderer", figures, "")
    reference: list[str] = []
    for name in given.cases:
        case = CASES[name]
        with opened(given.model, case, given.device) as engine:
            clips = made(engine, case, prompts, (height, width), given.frames, meant, defaults)
        digests = [clip.digest for clip in clips]
        reference = reference or digests
        same = "yes" if digests == reference else "no"
        told = "" if case.fields or case.first or case.lora is not None else same
        line(name, rated(judge, scenes, clips), told)


def opened(model: Path, case: Case, device: str) -> Engine:
    """The model as a case wants it.

    Raises FileNotFoundError if its distilled LoRA is to be of another strength, and there is none.
    """
    if case.lora is None:
        return Engine.open(model, device=device, residency=case.residency)
    found = sorted(model.glob("*distilled-lora*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{model} has no *distilled-lora*.safetensors")
    lora = (found[0], case.lora)
    return Engine.open(model, device=device, residency=case.residency, distilled_lora=lora)


def line(name: str, figures: Mapping[str, float], same: str) -> None:
    cells = [f"{value:.2f}" if value == value else "" for value in figures.values()]
    print(f"| {name} |", " | ".join(cells), f"| {same} |", flush=True)


if __name__ == "__main__":
    main()
