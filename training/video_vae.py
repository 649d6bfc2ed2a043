"""Train the video autoencoder: `python -m training.video_vae --minutes 10`.

It learns to bring back clips at both stages' sizes and single frames, which an image is encoded
as. `--decoder-only` goes on with the encoder as it is, so that whatever is trained on its latents
meanwhile stays right.
"""

import argparse
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    LTX2VideoResnetBlock3d,
    LTX2VideoUpsampler3d,
)
from torch import Tensor, nn

from entracte.models.video_vae import VideoVae

from .loop import Loop, Losses, Run, command, parse, train
from .measures import contact_sheet, psnr
from .media_sizes import VIDEO_VAE
from .world import FRAME_RATE, objects_mask, picture, sample_scenes
from .world.scenes import Split

NAME = "video_vae"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained on, and what counts.

    height, width: of stage 1; stage 2 has twice as many, of which a window of this size is shown.
    clips, stills: in a batch of clips, and in one of single frames of stage 2's size. Clips are
        learned in thirds, so that a step has three times as many.
    edges: the weight of differences between neighbouring pixels, at three scales; motion: between
        frames. objects: how much more the pixels of objects, and those around them, count.
    kl: the weight of a latent's nats.
    whole: from which part of a run's time on clips are learned whole.
    blur: how much noise a decoder is trained to bear, in standard deviations of the latents, once
        the encoder is frozen: what a transformer makes is never quite what was encoded.
    """

    height: int = 128
    width: int = 192
    frames: int = 49
    clips: int = 3
    stills: int = 16
    edges: float = 0.5
    motion: float = 1.0
    squares: float = 6.0
    objects: float = 8.0
    kl: float = 1e-5
    blur: float = 0.1
    whole: float = 0.8
    loop: Loop = Loop(learning_rate=3e-3, muon=True, decay=0.4, reports=120.0)  # noqa: RUF009


SETTINGS = Settings()
DECODER_SETTINGS = replace(SETTINGS, clips=6, stills=32)
SMOKE = Settings(height=32, width=64, frames=25, clips=1, stills=1)

KINDS = ("small", "window", "small", "window", "still")

# How many steps are made of the clips that are drawn at once; of how many thirds of clips, and
# around objects by how many pixels their weight reaches.
DRAWS = 8
REACH = 4

# Of scenes that figures are taken from, and how many batches of them make the statistics.
HELD_OUT_SEED = 1_000_003
STATISTICS_BATCHES = 16


def new_video_vae() -> VideoVae:
    """An autoencoder to begin a training with."""
    vae = VideoVae(VIDEO_VAE)
    vae.latents_mean.zero_()
    vae.latents_std.fill_(1)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    # Latents begin with little noise: what they carry would be lost in it.
    distribution = vae.encoder.conv_out.conv
    distribution.weight.data[-1].zero_()
    distribution.bias.data[-1] = -6
    for module in vae.modules():
        if isinstance(module, LTX2VideoResnetBlock3d):
            nn.init.zeros_(module.conv2.conv.weight)  # each block begins as an identity
        elif isinstance(module, LTX2VideoUpsampler3d):
            # All the pixels that are made of one begin alike (ICNR, arXiv 1707.02937).
            weight = module.conv.conv.weight.data
            made = math.prod(module.stride)
            weight.copy_(weight[::made].repeat_interleave(made, dim=0))
    return vae


def placed(vae: VideoVae, device: torch.device) -> VideoVae:
    """On a device, laid out as convolutions of bfloat16 want it there."""
    vae.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return vae


@dataclass(frozen=True, slots=True)
class Clips:
    """pixels: [n, 3, F, H, W] in -1..1. objects: [n, 1, F, H, W], what objects cover of each."""

    pixels: Tensor
    objects: Tensor


def clips(seed: int, count: int, kind: str, settings: Settings, run: Run, split: Split) -> Clips:
    """Draw clips.

    kind: "small" for stage 1's size, "window" for a part of stage 2's, "still" for single frames of
        stage 2's size, "large" for whole clips of it.
    """
    scenes = sample_scenes(count, seed, split)
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, generator=generator)[:, None]
    frames = 1 if kind == "still" else settings.frames
    times = (start + torch.arange(frames) / FRAME_RATE).to(run.device)
    window = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, -1)
    if kind == "window":
        corner = 0.5 * torch.rand(count, 2, generator=generator)
        window = torch.cat([corner, corner + 0.5], 1)
    scale = 2 if kind in ("still", "large") else 1
    size = scale * settings.height, scale * settings.width
    scenes, window = scenes.to(run.device), window.to(run.device)
    return Clips(picture(scenes, times, *size, window), objects_mask(scenes, times, *size, window))


def edges(error: Tensor, weight: Tensor) -> Tensor:
    """The mean absolute difference between neighbouring pixels, weighted, at three scales."""
    total = error.new_zeros(())
    error, weight = error.transpose(1, 2).flatten(0, 1), weight.transpose(1, 2).flatten(0, 1)
    for scale in range(3):
        if scale:
            error, weight = F.avg_pool2d(error, 2), F.avg_pool2d(weight, 2)
        total = total + (error.diff(dim=2).abs() * weight[:, :, 1:]).mean()
        total = total + (error.diff(dim=3).abs() * weight[..., 1:]).mean()
    return total


def difference(made: Tensor, wanted: Clips, settings: Settings) -> dict[str, Tensor]:
    """The weighted terms of what differs from clips in pixels [B, 3, F, H, W] in -1..1."""
    error = made - wanted.pixels
    near = F.max_pool3d(wanted.objects, (1, 2 * REACH + 1, 2 * REACH + 1), 1, (0, REACH, REACH))
    weight = 1 + settings.objects * near
    terms = {
        "absolute": (weight * error.abs()).mean(),
        "squares": settings.squares * (weight * error.square()).mean(),
        "edges": settings.edges * edges(error, weight),
    }
    if made.shape[2] > 1:
        # Where an object was or is.
        passed = torch.maximum(weight[:, :, 1:], weight[:, :, :-1])
        terms["motion"] = settings.motion * (passed * error.diff(dim=2).abs()).mean()
    return terms


def rebuild(vae: VideoVae, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels from sampled latents, and the latents' means and log variance."""
    means, log_variance = vae.encoder.moments(pixels).float().split([noise.shape[1], 1], dim=1)
    log_variance = log_variance.clamp(-12, 4)
    made = vae.decoder(means + (0.5 * log_variance).exp() * noise)
    return made.float(), means, log_variance


def rebuild_from_noisy(vae: VideoVae, pixels: Tensor, noise: Tensor) -> Tensor:
    """Pixels from the latents' means and noise in units of their standard deviation."""
    with torch.no_grad():
        means = vae.encoder(pixels)
    made: Tensor = vae.decoder(means + noise * vae.latents_std.view(1, -1, 1, 1, 1))
    return made.float()


def latent_noise(pixels: Tensor) -> Tensor:
    """Standard normal, in the shape of the latents of pixels."""
    batch, _, frames, height, width = pixels.shape
    shape = (batch, VIDEO_VAE["latent_channels"], (frames - 1) // 8 + 1, height // 32, width // 32)
    return torch.randn(shape, device=pixels.device)


def fit(run: Run, decoder_only: bool = False) -> VideoVae:
    """Train for one run, from the checkpoint in its folder if there is one."""
    settings = DECODER_SETTINGS if decoder_only else SETTINGS
    settings = SMOKE if run.smoke else settings
    vae = placed(new_video_vae(), run.device)
    vae.encoder.requires_grad_(not decoder_only)
    fast = run.device.type == "cuda"
    shown: dict[int, Clips] = {}

    def batch(step: int, done: float) -> Clips:
        """The clips that are drawn at once give several batches."""
        drawn, part = divmod(step, DRAWS)
        if drawn not in shown:
            shown.clear()
            kind = KINDS[drawn % len(KINDS)]
            count = DRAWS * (settings.stills if kind == "still" else settings.clips)
            shown[drawn] = clips(run.seed + drawn + 1, count, kind, settings, run, "train")
        rows, frames = slice(part, None, DRAWS), slice(None)
        if shown[drawn].pixels.shape[2] > 1 and done <= settings.whole:
            third = (settings.frames - 1) // 3
            first = third * (part // 3)
            rows, frames = slice(part % 3, None, 3), slice(first, first + third + 1)
        return Clips(shown[drawn].pixels[rows, :, frames], shown[drawn].objects[rows, :, frames])

    def loss(step: int, done: float) -> Losses:
        wanted = batch(step, done)
        noise = latent_noise(wanted.pixels)
        if decoder_only:
            each = torch.rand(len(noise), 1, 1, 1, 1, device=run.device)
            noise = noise * settings.blur * each
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            if decoder_only:
                return difference(rebuild_from_noisy(vae, wanted.pixels, noise), wanted, settings)
            made, means, log_variance = rebuild(vae, wanted.pixels, noise)
        nats = 0.5 * (means.square() + log_variance.exp() - 1 - log_variance).mean()
        return {**difference(made, wanted, settings), "kl": settings.kl * nats}

    def report() -> dict[str, float]:
        if not decoder_only:
            set_statistics(vae, settings, run)
        return measure(vae, settings, run)

    train(NAME, vae, loss, report, settings.loop, run)
    return vae


@torch.no_grad()
def set_statistics(vae: VideoVae, settings: Settings, run: Run) -> None:
    """Set every channel's mean and standard deviation, over latents of both stages' sizes."""
    found = []
    for batch in range(1 if run.smoke else STATISTICS_BATCHES):
        kind = "large" if batch % 2 else "small"
        count = settings.clips if batch % 2 else 4 * settings.clips
        pixels = clips(batch, count, kind, settings, run, "train").pixels
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            found.append(vae.encoder(pixels).float().transpose(0, 1).flatten(1))
    # Both sizes count alike.
    means = torch.stack([each.mean(1) for each in found])
    squares = torch.stack([each.square().mean(1) for each in found])
    mean = means.mean(0)
    vae.latents_mean.copy_(mean)
    vae.latents_std.copy_((squares.mean(0) - mean.square()).clamp(min=1e-8).sqrt())


@torch.no_grad()
def measure(vae: VideoVae, settings: Settings, run: Run) -> dict[str, float]:
    """PSNR of held-out clips, in dB, through the means; and a contact sheet."""
    found = {}
    rows = []
    for kind, count in (("small", 4), ("large", 4), ("still", 16)):
        count = 1 if run.smoke else count
        wanted = clips(HELD_OUT_SEED, count, kind, settings, run, "heldout")
        pixels = wanted.pixels
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            made = torch.cat([vae.decoder(vae.encoder(each[None])).float() for each in pixels])
        found[f"psnr_{kind}"] = float(psnr(made, pixels).mean())
        objects = wanted.objects.expand_as(pixels) > 0.5
        error = (made - pixels)[objects].square().mean()
        found[f"psnr_{kind}_objects"] = float(10 * torch.log10(4 / error))
        if kind == "large":
            found["psnr_first_frame"] = float(psnr(made[:, :, :1], pixels[:, :, :1]).mean())
            rows = [each for pair in zip(pixels, made, strict=True) for each in pair]
    contact_sheet(rows[:8], run.folder / f"{NAME}.png")
    found["std_min"], found["std_max"] = (
        float(vae.latents_std.min()),
        float(vae.latents_std.max()),
    )
    return found


def main() -> None:
    parser = command(__doc__ or "")
    parser.add_argument("--decoder-only", action=argparse.BooleanOptionalAction, default=False)
    options = parser.parse_args()
    fit(parse(options), options.decoder_only)


if __name__ == "__main__":
    main()
