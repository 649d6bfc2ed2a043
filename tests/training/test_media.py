"""The autoencoders, the vocoder and the upsampler learn on a CPU for a step, and go on."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from training.loop import Run, command, load_weights, parse
from training.muon import orthogonal
from training.waves import log_mel, mel_basis, narrowed, onset_errors

from training import audio_vae, upsampler, video_vae, vocoder

CPU = torch.device("cpu")


def a_run(folder: Path, steps: int) -> Run:
    return Run(folder=folder, minutes=5, steps=steps, device=CPU, seed=0, smoke=True)


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("fit", "new"),
    [
        (video_vae.fit, video_vae.new_video_vae),
        (audio_vae.fit, audio_vae.new_audio_vae),
        (vocoder.fit, vocoder.new_vocoder),
    ],
)
def test_a_run_goes_on_where_the_last_one_ended(
    tmp_path: Path, fit: Callable[[Run], nn.Module], new: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    fit(a_run(tmp_path, steps=1))
    again = fit(a_run(tmp_path, steps=2))
    [checkpoint] = tmp_path.glob("*.safetensors")
    restored = new()
    assert load_weights(checkpoint, restored) == 3
    kept = restored.state_dict()
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(kept[name], tensor, atol=1e-3, rtol=1e-3)
    [log] = tmp_path.glob("*.log")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 3]


@pytest.mark.slow
def test_processes_that_train_together_end_alike(tmp_path: Path) -> None:
    """Each has other clips; their weights, averaged over both at every step, are the same."""
    mp.spawn(train_as_a_rank, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["seed"] != second["seed"]
    for name, tensor in first["weights"].items():
        torch.testing.assert_close(second["weights"][name], tensor, atol=0, rtol=0)
    assert len((tmp_path / "audio_vae.log").read_text().splitlines()) == 1


def train_as_a_rank(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    options = ["--folder", str(folder), "--device", "cpu", "--smoke", "--steps", "2"]
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    run = parse(command("").parse_args(options))
    weights = audio_vae.fit(run).state_dict()
    torch.save({"seed": run.seed, "weights": weights}, folder / f"rank{rank}.pt")


def test_statistics_are_of_what_the_encoder_gives(tmp_path: Path) -> None:
    run = a_run(tmp_path, steps=1)
    vae = video_vae.new_video_vae()
    video_vae.set_statistics(vae, video_vae.SMOKE, run)
    with torch.no_grad():
        pixels = video_vae.clips(0, 4, "small", video_vae.SMOKE, run, "train").pixels
        normal = vae.encode(pixels).transpose(0, 1).flatten(1)
    torch.testing.assert_close(normal.mean(1), torch.zeros(128), atol=1e-3, rtol=0)
    torch.testing.assert_close(normal.std(1, correction=0), torch.ones(128), atol=1e-2, rtol=0)


@pytest.mark.slow
def test_only_the_decoder_changes_beside_a_frozen_encoder(tmp_path: Path) -> None:
    before = video_vae.fit(a_run(tmp_path, steps=1))
    encoder = {name: each.half() for name, each in before.encoder.state_dict().items()}
    after = video_vae.fit(a_run(tmp_path, steps=1), decoder_only=True)
    for name, each in after.encoder.state_dict().items():
        assert torch.equal(each.half(), encoder[name])
    moved = zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    assert any(not torch.equal(each.half(), other.half()) for each, other in moved)


@pytest.mark.slow
def test_the_upsampler_learns_from_a_trained_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="needs a trained video VAE"):
        upsampler.fit(a_run(tmp_path, steps=1))
    video_vae.fit(a_run(tmp_path, steps=1))
    upsampler.fit(a_run(tmp_path, steps=1))
    assert (tmp_path / "upsampler.safetensors").exists()


def test_muon_steps_are_orthogonal() -> None:
    x = torch.randn(2, 24, 96, generator=torch.Generator().manual_seed(0))
    for matrices in (x, x.mT):
        values = torch.linalg.svdvals(orthogonal(matrices).float())
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_what_16_khz_can_hold_survives_resampling_and_the_rest_is_gone() -> None:
    time = torch.arange(48000) / 48000
    heard = (2 * math.pi * 1000 * time).sin()
    narrow = narrowed(heard.expand(1, 2, -1))
    wanted = (2 * math.pi * 1000 * torch.arange(16000) / 16000).sin()
    torch.testing.assert_close(narrow[0, 0, 100:-100], wanted[100:-100], atol=2e-3, rtol=0)
    gone = narrowed((2 * math.pi * 11000 * time).sin().expand(1, 2, -1))
    assert gone[..., 100:-100].abs().max() < 0.02


def test_a_log_mel_peaks_where_a_tone_is() -> None:
    tone = (2 * math.pi * 440 * torch.arange(16000) / 16000).sin().expand(1, 2, -1)
    mel = log_mel(tone)
    assert mel.shape == (1, 2, 101, 64)
    # Slaney's scale: 440 Hz are 6.6 mels, of 45.2 in 65 equal parts up to 8 kHz.
    assert (
        mel[0, 0, 50].argmax()
        == round(440 / (200 / 3) / (15 + math.log(8) / math.log(6.4) * 27) * 65) - 1
    )
    area = mel_basis(64, 1024, 16000).sum(1) * 16000 / 1024
    torch.testing.assert_close(area, torch.ones(64), atol=0.15, rtol=0)


def test_onsets_are_found_where_they_are() -> None:
    rate = 48000
    time = torch.arange(rate) / rate
    knock = torch.where(
        time > 0.4, (-(time - 0.4) / 0.05).exp() * (2 * math.pi * 400 * time).sin(), 0
    )
    quiet = 0.001 * torch.randn(rate, generator=torch.Generator().manual_seed(0))
    [error] = onset_errors((knock + quiet)[None], rate, [[0.4]])
    assert error < 0.006
    [error] = onset_errors((knock + quiet)[None], rate, [[0.43]])
    assert error == pytest.approx(0.03, abs=0.006)
