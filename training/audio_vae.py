"""Train the audio autoencoder: `python -m training.audio_vae --minutes 10`.

It learns to bring back log-mel spectrograms of stereo sound at 16 kHz.
"""

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from entracte.models.audio_vae import CHANNELS, AudioVae

from .loop import Loop, Losses, Run, command, parse, train
from .media_sizes import AUDIO_VAE
from .waves import log_mel, narrowed, waveforms
from .world.scenes import Split

NAME = "audio_vae"


@dataclass(frozen=True, slots=True)
class Settings:
    """frames: of the clips whose sound is learned.

    changes: the weight of differences from one mel frame to the next, which onsets are.
    kl: the weight of a latent's nats.
    """

    clips: int = 32
    frames: int = 49
    squares: float = 0.25
    changes: float = 1.0
    kl: float = 1e-3
    loop: Loop = Loop(learning_rate=2e-3)  # noqa: RUF009


SETTINGS = Settings()
SMOKE = Settings(clips=1, frames=17)
HELD_OUT_SEED = 1_000_003


def new_audio_vae() -> AudioVae:
    """An autoencoder to begin a training with."""
    vae = AudioVae(AUDIO_VAE)
    vae.model.latents_mean.zero_()
    vae.model.latents_std.fill_(1)
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            if name.endswith("conv2.conv"):
                nn.init.zeros_(module.weight)  # each block begins as an identity
    output = vae.model.decoder.conv_out.conv
    nn.init.constant_(output.bias, -6)  # about the mean of a log-mel
    return vae


def mels(seed: int, settings: Settings, run: Run, split: Split = "train") -> Tensor:
    """Log-mels [clips, 2, frames, 64] of a length that the decoder can give, 4k - 3."""
    mel = log_mel(narrowed(waveforms(seed, settings.clips, settings.frames, run.device, split)))
    return mel[:, :, : (mel.shape[2] - 1) // 4 * 4 + 1]


def rebuild(vae: AudioVae, mel: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A log-mel from sampled latents, and the latents' means and log variances."""
    means, log_variance = vae.model.encoder(mel).float().chunk(2, dim=1)
    log_variance = log_variance.clamp(-12, 4)
    made = vae.model.decoder(means + (0.5 * log_variance).exp() * noise)
    return made.float(), means, log_variance


def difference(made: Tensor, wanted: Tensor, settings: Settings) -> dict[str, Tensor]:
    """The weighted terms of what differs between log-mels."""
    error = made - wanted
    return {
        "absolute": error.abs().mean(),
        "squares": settings.squares * error.square().mean(),
        "changes": settings.changes * error.diff(dim=2).abs().mean(),
    }


def fit(run: Run) -> AudioVae:
    """Train for one run, from the checkpoint in its folder if there is one."""
    settings = SMOKE if run.smoke else SETTINGS
    vae = new_audio_vae().to(run.device)
    fast = run.device.type == "cuda"

    def loss(step: int, done: float) -> Losses:  # noqa: ARG001
        mel = mels(run.seed + step + 1, settings, run)
        latent = (mel.shape[0], CHANNELS, (mel.shape[2] + 3) // 4, mel.shape[3] // 4)
        noise = torch.randn(latent, device=run.device)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            made, means, log_variance = rebuild(vae, mel, noise)
        nats = 0.5 * (means.square() + log_variance.exp() - 1 - log_variance).mean()
        return {**difference(made, mel, settings), "kl": settings.kl * nats}

    def report() -> dict[str, float]:
        set_statistics(vae, settings, run)
        return measure(vae, settings, run)

    train(NAME, vae, loss, report, settings.loop, run)
    return vae


@torch.no_grad()
def set_statistics(vae: AudioVae, settings: Settings, run: Run) -> None:
    """Set the mean and standard deviation of each of a latent frame's 128 features."""
    found = [
        vae.model.encoder(mels(seed, settings, run))[:, :CHANNELS].permute(1, 3, 0, 2).flatten(2)
        for seed in range(1 if run.smoke else 8)
    ]
    features = torch.cat(found, 2).flatten(0, 1)
    vae.model.latents_mean.copy_(features.mean(1))
    vae.model.latents_std.copy_(features.std(1).clamp(min=1e-4))


@torch.no_grad()
def measure(vae: AudioVae, settings: Settings, run: Run) -> dict[str, float]:
    """The mean absolute error of held-out log-mels, in nepers and as dB; and a picture of them."""
    mel = mels(HELD_OUT_SEED, settings, run, "heldout")
    made = vae.model.decoder(vae.model.encoder(mel)[:, :CHANNELS])
    error = float((made - mel).abs().mean())
    rows = [each[0].T.flip(0) for pair in zip(mel, made, strict=True) for each in pair][:12]
    sheet = ((torch.cat(rows) + 11.5) / 12.5).clamp(0, 1).mul(255).byte().cpu()
    Image.fromarray(sheet.numpy()).save(run.folder / f"{NAME}.png")
    return {"error": error, "error_db": error * 20 / math.log(10)}


def main() -> None:
    fit(parse(command(__doc__ or "").parse_args()))


if __name__ == "__main__":
    main()
