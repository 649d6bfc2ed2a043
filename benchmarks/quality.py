"""How well a model of the world in `training/world` shows its prompts: a table, in Markdown.

    python benchmarks/quality.py --model demo-model --judge train/classifier.safetensors
    python benchmarks/quality.py ... --cases steps-4 steps-8 guidance-off --prompts 20

The prompts are of held-out scenes. What the videos show is judged by a classifier that was trained
on the renderer alone; the first row is its judgement of the renderer's own clips of these prompts,
which is the best that a model can get. Columns: the share of videos with the right objects,
colours, motion and background; of what is seen to happen, how far the nearest onset in the sound
is, in ms on average, and how far it is from another video's sound, which is chance; detail; how
close frames are that were given as images, in dB; seconds a video; and of the modes, whether the
latents of all videos are those of the first case, bit for bit. `--sheets DIR` has frames of every
case's videos as pictures, a row a prompt, with the renderer's in the first file.
"""

import argparse
import hashlib
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from entracte import Engine, ImageCondition, Request, Residency
from entracte.checkpoints.loading import build_component, prepare_module
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import Precision
from entracte.models.video_vae import VideoVae
from entracte.recipes import Guidance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.classifier import Judge, Seen, judged, ordered
from training.loop import load_weights
from training.measures import contact_sheet
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
    size, and enlarged as a picture. upsampled: stage 1's latent is upsampled and decoded, without
    stage 2. given: the frames that are given, of the renderer's clip.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    residency: Residency = field(default_factory=Residency)
    precision: Precision = "exact"
    lora: float | None = None
    enlarge: bool = False
    upsampled: bool = False
    given: tuple[int, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether its latents are to be the first case's."""
        return self == Case(residency=self.residency) and self.residency.mode != "dynamic"


CASES: Mapping[str, Case] = {
    "default": Case(),
    "snapshot": Case(residency=Residency(mode="snapshot")),
    "fused": Case(residency=Residency(mode="fused")),
    "dynamic": Case(residency=Residency(mode="dynamic")),
    "original": Case(residency=Residency(mode="original")),
    "guidance-off": Case({"video_guidance": OFF, "audio_guidance": OFF}),
    **{f"steps-{n}": Case({"num_inference_steps": n}) for n in (4, 6, 8, 12, 20, 30)},
    **{f"lora-{strength}": Case(lora=strength) for strength in (0.0, 0.5, 1.0, 1.5)},
    "fp8": Case(precision="fp8"),
    "image": Case(given=(0,)),
    "keyframes": Case({"pipeline": "keyframes"}, given=(0, 48)),
    # Stage 1 enlarged, and upsampled, against which stage 2 is seen; and the whole in one act.
    "enlarged": Case({"pipeline": "one-stage"}, enlarge=True),
    "upsampled": Case(upsampled=True),
    "one-stage": Case({"pipeline": "one-stage"}),
    "one-stage-6": Case({"pipeline": "one-stage", "num_inference_steps": 6}),
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
        "given dB": mean([clip.psnr for clip in clips if clip.psnr is not None]),
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


def component(model: Path, name: str) -> Any:
    """A component of a model's folder, in float32."""
    opened = open_model(str(model), ModelPaths(), distilled=False)
    source = opened.components[name]
    module = build_component(source, opened.version)
    tensors = {key: each.tensor().float() for key, each in source.tensors.items()}
    module.load_state_dict(tensors, assign=True)
    return prepare_module(module, torch.device("cpu")).eval().requires_grad_(False)


def in_pixels(video: Tensor) -> Tensor:
    """[1, 3, F, H, W] in -1..1 to uint8 [F, H, W, 3]."""
    return ((video[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu()


def through_vae(vae: VideoVae, clips: Sequence[Clip]) -> list[Clip]:
    """What is left of clips after encoding and decoding."""
    found = []
    for clip in clips:
        video = clip.frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        frames = in_pixels(vae.decode(vae.normalise(vae.encoder(video))))
        found.append(replace(clip, frames=frames, psnr=psnr(frames, clip.frames)))
    return found


def made(
    engine: Engine,
    case: Case,
    prompts: Iterable[str],
    size: tuple[int, int],
    frames: int,
    meant: Sequence[Clip],
    defaults: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> list[Clip]:
    """A video a prompt."""
    height, width = (side // 2 if case.enlarge else side for side in size)
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for row, prompt in enumerate(prompts):
            values = {**defaults, **case.fields}
            images = []
            for at in case.given:
                path = Path(folder) / f"{row}-{at}.png"
                Image.fromarray(meant[row].frames[at].numpy()).save(path)
                images.append(ImageCondition(path, at, crf=0))
            if images:
                values["images"] = images
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
            if case.upsampled:
                vae, small = parts["video_vae"], result.latents["stage1.video_latent"].cpu().float()
                large = parts["upsampler"](vae.denormalise(small))
                pixels = in_pixels(vae.decode(vae.normalise(large)))
            if case.enlarge:
                small = pixels.permute(0, 3, 1, 2).float()
                large = F.interpolate(small, size, mode="bicubic", antialias=True)
                pixels = large.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
            digest = hashlib.sha256()
            for name in sorted(result.latents):
                digest.update(result.latents[name].contiguous().view(torch.uint8).numpy().data)
            near = [psnr(pixels[at], meant[row].frames[at]) for at in case.given]
            sound = result.audio.cpu().float()
            clips.append(
                Clip(
                    pixels,
                    sound,
                    result.sample_rate,
                    seconds,
                    digest.hexdigest(),
                    mean(near) if near else None,
                )
            )
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
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of the videos")
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
    parts = {name: component(given.model, name) for name in ("video_vae", "upsampler")}
    meant = rendered(scenes, (height, width), given.frames)
    figures = rated(judge, scenes, meant)
    print("| case |", " | ".join(figures), "| same bits |")
    print("|---|" + "---|" * (len(figures) + 1))
    line("the renderer", figures, "")
    sheet(given.sheets, "the renderer", meant)
    kept = through_vae(parts["video_vae"], meant)
    line("the renderer, through the video VAE", rated(judge, scenes, kept), "")
    reference: list[str] = []
    for name in given.cases:
        case = CASES[name]
        with opened(given.model, case, given.device) as engine:
            size = height, width
            clips = made(engine, case, prompts, size, given.frames, meant, defaults, parts)
        digests = [clip.digest for clip in clips]
        reference = reference or digests
        same = "yes" if digests == reference else "no"
        line(name, rated(judge, scenes, clips), same if case.exact else "")
        sheet(given.sheets, name, clips)


def sheet(folder: Path | None, name: str, clips: Sequence[Clip]) -> None:
    """Write frames of at most a dozen videos, if there is a folder for them."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    videos = [clip.frames.permute(3, 0, 1, 2).float() / 127.5 - 1 for clip in clips[:12]]
    contact_sheet(videos, folder / f"{name.replace(' ', '-')}.png", frames=6)


def opened(model: Path, case: Case, device: str) -> Engine:
    """The model as a case wants it.

    Raises FileNotFoundError if its distilled LoRA is to be of another strength, and there is none.
    """
    residency, precision = case.residency, case.precision
    if case.lora is None:
        return Engine.open(model, device=device, residency=residency, precision=precision)
    found = sorted(model.glob("*distilled-lora*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{model} has no *distilled-lora*.safetensors")
    lora = (found[0], case.lora)
    return Engine.open(model, device=device, residency=residency, distilled_lora=lora)


def line(name: str, figures: Mapping[str, float], same: str) -> None:
    cells = [f"{value:.2f}" if value == value else "" for value in figures.values()]
    print(f"| {name} |", " | ".join(cells), f"| {same} |", flush=True)


if __name__ == "__main__":
    main()
