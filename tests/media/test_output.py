import contextlib
import os
import pty
import signal
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from entracte.errors import MediaError
from entracte.media.output import check_output, open_output

from ..faults import full_disk

RATE = 48_000


def frames(count: int, height: int = 64, width: int = 96) -> torch.Tensor:
    ramp = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1) * 8
    return ramp.expand(count, height, width, 3).contiguous()


def tone(seconds: float) -> torch.Tensor:
    time_axis = torch.arange(int(seconds * RATE)) / RATE
    return torch.sin(2 * torch.pi * 440 * time_axis).expand(2, -1) * 0.5


def write(path: Path, rate: float = 24.0, count: int = 25) -> None:
    with open_output(path, rate, tone(count / rate), RATE) as writer:
        for chunk in frames(count).split(10):
            writer.write(chunk)


@pytest.mark.parametrize("rate", [24.0, 23.976, 30.0])
def test_mp4(tmp_path: Path, rate: float) -> None:
    path = tmp_path / "video.mp4"
    write(path, rate)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264"
        assert float(video.average_rate) == pytest.approx(rate, rel=1e-4)
        assert audio.codec_context.name == "aac"
        assert audio.layout.name == "stereo"
        assert audio.rate == RATE
        decoded = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
        container.seek(0)
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    assert len(decoded) == 25
    assert np.allclose(decoded, np.arange(25) * 8, atol=4)
    assert sound.shape[1] / RATE == pytest.approx(25 / rate, abs=0.05)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is all there
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_frames(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "frame_00099.png").touch()  # of an earlier, longer video
    write(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["audio.wav", *(f"frame_{i:05d}.png" for i in range(25)), "notes.txt"]
    assert np.asarray(Image.open(tmp_path / "frame_00003.png")).max() == 24
    with wave.open(str(tmp_path / "audio.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, RATE, 2)
        assert file.getnframes() == int(25 / 24 * RATE)


@pytest.mark.parametrize("target", ["video.mp4", "."])
def test_a_failure_leaves_nothing_and_keeps_what_was(tmp_path: Path, target: str) -> None:
    write(tmp_path / target)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with (
        pytest.raises(RuntimeError, match="decoder"),
        open_output(tmp_path / target, 24.0, tone(1), RATE) as writer,
    ):
        writer.write(frames(5))
        raise RuntimeError("the decoder failed")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("target", ["video.mp4", "."])
def test_a_full_disk(tmp_path: Path, target: str) -> None:
    noise = torch.randint(0, 255, (40, 256, 256, 3), dtype=torch.uint8)
    with (
        full_disk(after=100_000),
        pytest.raises(MediaError, match="cannot write"),
        open_output(tmp_path / target, 24.0, tone(2), RATE) as writer,
    ):
        for chunk in noise.split(8):
            writer.write(chunk)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gone/video.mp4", "gone does not exist; make it first"),
        ("gone", "gone does not exist; make it first, or name an .mp4 file"),
        ("video.mov", r"videos are written as \.mp4"),
    ],
)
def test_outputs_that_are_refused(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        check_output(tmp_path / target)


def test_a_folder_named_mp4(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError, match="is a folder; name a file"):
        check_output(tmp_path / "folder.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MediaError, match="cannot be written to"):
        check_output(tmp_path / "video.mp4")


def test_ctrl_c_leaves_no_partial_file(demo_model: Path, tmp_path: Path) -> None:
    """The real command at a terminal, interrupted while it denoises."""
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "entracte", "generate", "--model", str(demo_model),
            "--prompt", "x", "--height", "256", "--width", "256", "--num-frames", "49",
            "--num-inference-steps", "500", "--output-path", str(tmp_path / "video.mp4"),
        ],
        stderr=terminal,
        # A shell that starts tests in the background has them, and what they start, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(terminal)
    said = ""
    with os.fdopen(ours, errors="replace") as shown, contextlib.suppress(OSError):  # its end
        for line in shown:
            if "denoise" in line and "denoise" not in said:
                process.send_signal(signal.SIGINT)
            said += line
    assert process.wait(60) == 130
    assert "stopped; no partial file was left" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
