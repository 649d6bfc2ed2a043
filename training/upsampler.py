"""Train the latent upsampler: `python -m training.upsampler --minutes 5`.

It learns, from the same clips encoded at both stages' sizes, to make the large latent of the small
one. The trained video autoencoder must be in the folder.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae

from . import video_vae
from .loop import Loop, Losses, Run, command, load_weights, parse, train
from .measures import contact_sheet, psnr
from .media_sizes import UPSAMPLER, VIDEO_VAE
from .world import FRAME_RATE, picture, sample_scenes
from .world.scenes import Split

NAME = "upsampler"


@dataclass(frozen=True, slots=True)
class Settings:
    """height, width: of stage 1."""

    clips: int = 8
    height: int = 128
    width: int = 192
    frames: int = 49
    loop: Loop = Loop(learning_rate=2e-3, muon=True)  # noqa: RUF009


SETTINGS = Settings()
SMOKE = Settings(clips=1, height=64, width=64, frames=9)
HELD_OUT_SEED = 1_000_003


def new_upsampler() -> Upsampler:
    """An upsampler to begin a training with."""
    upsampler = Upsampler(UPSAMPLER)
    for name, module in upsampler.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        if name.endswith("norm2") and isinstance(module, nn.GroupNorm):
            nn.init.zeros_(module.weight)  # each block begins without its branch
    return upsampler


def both_sizes(
    seed: int, settings: Settings, run: Run, split: Split = "train"
) -> tuple[Tensor, Tensor]:
    """The same clips at stage 1's size and at stage 2's."""
    scenes = sample_scenes(settings.clips, seed, split).to(run.device)
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(settings.clips, generator=generator)[:, None]
    times = (start + torch.arange(settings.frames) / FRAME_RATE).to(run.device)
    small = picture(scenes, times, settings.height, settings.width)
    return small, picture(scenes, times, 2 * settings.height, 2 * settings.width)


def fit(run: Run) -> Upsampler:
    """Train for one run, from the checkpoint in its folder if there is one."""
    settings = SMOKE if run.smoke else SETTINGS
    vae = VideoVae(VIDEO_VAE)
    checkpoint = run.folder / f"{video_vae.NAME}.safetensors"
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"the upsampler needs a trained video VAE: there is no {checkpoint}"
        )
    load_weights(checkpoint, vae)
    video_vae.placed(vae, run.device).requires_grad_(False)
    upsampler = new_upsampler().to(run.device)
    fast = run.device.type == "cuda"
    std = vae.latents_std.view(1, -1, 1, 1, 1)

    def encode(pixels: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            latents: Tensor = vae.encoder(pixels).float()
        return latents

    def loss(step: int, done: float) -> Losses:  # noqa: ARG001
        small, large = (encode(each) for each in both_sizes(run.seed + step + 1, settings, run))
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            made = upsampler(small).float()
        error = (made - large) / std
        return {"squares": error.square().mean()}

    @torch.no_grad()
    def report() -> dict[str, float]:
        small, large = both_sizes(HELD_OUT_SEED, settings, run, "heldout")
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            made = vae.decoder(upsampler(vae.encoder(small)))
            stage_1 = vae.decoder(vae.encoder(small)).float()
        enlarged = F.interpolate(
            stage_1.transpose(1, 2).flatten(0, 1), scale_factor=2, mode="bicubic"
        )
        enlarged = enlarged.unflatten(0, (len(small), -1)).transpose(1, 2)
        pairs = zip(large, made, enlarged, strict=True)
        contact_sheet([each for row in pairs for each in row], run.folder / f"{NAME}.png")
        return {
            "psnr": float(psnr(made, large).mean()),
            "psnr_enlarged": float(psnr(enlarged, large).mean()),
        }

    train(NAME, upsampler, loss, report, settings.loop, run)
    return upsampler


def main() -> None:
    fit(parse(command(__doc__ or "").parse_args()))


if __name__ == "__main__":
    main()
