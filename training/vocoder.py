"""Train the vocoder: `python -m training.vocoder --minutes 10`.

Its generator learns to make 16 kHz sound from log-mels, its bandwidth extension what 48 kHz sound
has beyond that. With an audio autoencoder beside its checkpoint, half of the log-mels have gone
through that.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entracte.models.audio_vae import CHANNELS
from entracte.models.vocoder import Vocoder

from . import audio_vae
from .loop import Loop, Losses, Run, command, load_weights, parse, train
from .media_sizes import VOCODER
from .waves import (
    HOP,
    RATIO,
    event_times,
    log_mel,
    mel_basis,
    narrowed,
    onset_errors,
    waveforms,
)
from .world import SAMPLE_RATE
from .world.scenes import Split

NAME = "vocoder"


@dataclass(frozen=True, slots=True)
class Settings:
    """segment: mel frames of a clip that are learned at a time.

    ffts: window lengths whose spectra are compared.
    """

    clips: int = 24
    frames: int = 49
    segment: int = 96
    ffts: tuple[int, ...] = (128, 512, 2048)
    mel: float = 1.0
    loop: Loop = Loop(learning_rate=1.5e-3, betas=(0.8, 0.98), muon=True)  # noqa: RUF009


SETTINGS = Settings()
SMOKE = Settings(clips=1, frames=17, segment=16, ffts=(128, 512))
HELD_OUT_SEED = 1_000_003


def new_vocoder() -> Vocoder:
    """A vocoder to begin a training with, whose spectra are those that its config names."""
    vocoder = Vocoder(VOCODER)
    vocoder.restore_buffers()
    stft = vocoder.model.mel_stft
    fft, rate = VOCODER["bwe"]["n_fft"], VOCODER["bwe"]["input_sampling_rate"]
    angles = 2 * math.pi * torch.arange(fft // 2 + 1)[:, None] * torch.arange(fft) / fft
    basis = torch.cat([angles.cos(), -angles.sin()])
    window = torch.hann_window(fft)
    stft.stft_fn.forward_basis.copy_((basis * window)[:, None])
    stft.stft_fn.inverse_basis.copy_(torch.linalg.pinv(basis).T[:, None] * window)
    stft.mel_basis.copy_(mel_basis(VOCODER["bwe"]["num_mels"], fft, rate))
    for name, module in vocoder.named_modules():
        if name.endswith("conv_out") and isinstance(module, nn.Conv1d):
            module.weight.data.mul_(0.1)  # begin quietly
    return vocoder


def generate(vocoder: Vocoder, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Sound at 16 and at 48 kHz from log-mels; the first learns nothing from the second."""
    model = vocoder.model
    narrow = model.vocoder(mel)
    given = narrow.detach()
    spectra = model.mel_stft(given.flatten(0, 1))[0]
    spectra = spectra.unflatten(0, given.shape[:2]).transpose(2, 3)
    return narrow, model.bwe_generator(spectra) + model.resampler(given)


def spectral(made: Tensor, wanted: Tensor, settings: Settings) -> Tensor:
    """How magnitudes of spectra differ, relative and as logarithms (arXiv 1910.11480): of left,
    right, and both together, which would be silent if one were the other's negative.
    """
    total = made.new_zeros(())
    made, wanted = (
        torch.cat([each, each.mean(1, keepdim=True)], 1).flatten(0, 1) for each in (made, wanted)
    )
    for fft in settings.ffts:
        window = torch.hann_window(fft, device=made.device)

        def magnitude(wave: Tensor, fft: int = fft, window: Tensor = window) -> Tensor:
            spectrum = torch.stft(wave, fft, fft // 4, window=window, return_complex=True)
            return torch.view_as_real(spectrum).square().sum(-1).clamp(min=1e-7).sqrt()

        ours, theirs = magnitude(made), magnitude(wanted)
        total = total + (ours - theirs).norm() / theirs.norm().clamp(min=1e-3)
        total = total + (ours.log() - theirs.log()).abs().mean()
    return total / len(settings.ffts)


def fit(run: Run) -> Vocoder:
    """Train for one run, from the checkpoint in its folder if there is one."""
    settings = SMOKE if run.smoke else SETTINGS
    vocoder = new_vocoder().to(run.device)
    coder = audio_vae.new_audio_vae().to(run.device).requires_grad_(False)
    checkpoint = run.folder / f"{audio_vae.NAME}.safetensors"
    if checkpoint.exists():
        load_weights(checkpoint, coder)

    def loss(step: int, done: float) -> Losses:  # noqa: ARG001
        seed = run.seed + step + 1
        mel, narrow, wide = pairs(seed, settings, run, "train")
        if checkpoint.exists() and step % 2:
            with torch.no_grad():
                mel = coder.model.decoder(coder.model.encoder(mel)[:, :CHANNELS])
        last = narrow.shape[2] // HOP - settings.segment
        first = int(torch.randint(last + 1, (), generator=torch.Generator().manual_seed(seed)))
        mel = mel[:, :, first : first + settings.segment]
        narrow = narrow[..., first * HOP : (first + settings.segment) * HOP]
        wide = wide[..., first * HOP * RATIO : (first + settings.segment) * HOP * RATIO]
        made, extended = generate(vocoder, mel)
        return {
            "narrow": spectral(made, narrow, settings),
            "mel": settings.mel * (log_mel(made) - log_mel(narrow)).abs().mean(),
            "wide": spectral(extended, wide, settings),
        }

    train(NAME, vocoder, loss, lambda: measure(vocoder, settings, run), settings.loop, run)
    return vocoder


def pairs(seed: int, settings: Settings, run: Run, split: Split) -> tuple[Tensor, Tensor, Tensor]:
    """Log-mels of whole latent frames, and their sound at 16 and at 48 kHz."""
    wide = waveforms(seed, settings.clips, settings.frames, run.device, split)
    narrow = narrowed(wide)
    mel = log_mel(narrow)
    return mel[:, :, : (mel.shape[2] - 1) // 4 * 4 + 1], narrow, wide


@torch.no_grad()
def measure(vocoder: Vocoder, settings: Settings, run: Run) -> dict[str, float]:
    """Of held-out sound: the log-mel's error in dB, and how far onsets have moved."""
    mel, narrow, wide = pairs(HELD_OUT_SEED, settings, run, "heldout")
    made, extended = generate(vocoder, mel)
    length = min(made.shape[2], narrow.shape[2])
    error = (log_mel(made[..., :length]) - log_mel(narrow[..., :length])).abs().mean()
    end = min(extended.shape[2], wide.shape[2])
    times = event_times(HELD_OUT_SEED, settings.clips, settings.frames, "heldout")
    late = onset_errors(extended[..., :end].mean(1), SAMPLE_RATE, times)
    late_in_the_world = onset_errors(wide[..., :end].mean(1), SAMPLE_RATE, times)
    return {
        "error_db": float(error) * 20 / math.log(10),
        "onset_ms": 1000 * sum(late) / max(1, len(late)),
        "onset_ms_of_the_world": 1000 * sum(late_in_the_world) / max(1, len(late)),
        "onsets": len(late),
        "peak": float(extended.abs().max()),
    }


def main() -> None:
    fit(parse(command(__doc__ or "").parse_args()))


if __name__ == "__main__":
    main()
