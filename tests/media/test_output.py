import contextlib
import math
import os
import pty
import signal
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from entracte.errors import MediaError
from entracte.media.output import check_output, open_output
from tests.serve.running import PATIENCE

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
        assert file.getnframes() == 25 / 24 * RATE


PATCHES = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 150, 120), (255, 255, 255), (0, 0, 0),
    (20, 80, 10), (128, 128, 128),
)  # fmt: skip


def patches(height: int, width: int) -> torch.Tensor:
    """Nine frames of columns of plain colours."""
    colours = torch.tensor(PATCHES, dtype=torch.uint8)
    row = colours.repeat_interleave(width // len(PATCHES), dim=0)
    return row.expand(9, height, *row.shape).contiguous()


def seen(picture: np.ndarray) -> np.ndarray:
    """The middle of every patch."""
    height, width = picture.shape[:2]
    cell = width // len(PATCHES)
    return picture[height // 2, cell // 2 :: cell].astype(int)


def bt709(planes: list[np.ndarray]) -> np.ndarray:
    """Y, Cb and Cr of limited range to RGB, by the coefficients of ITU-R BT.709."""
    y, cb, cr = (seen(plane[..., None])[..., 0].astype(float) for plane in planes)
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.stack([red, green, blue], axis=-1) * 255


@pytest.mark.parametrize("size", [(64, 96), (480, 640), (576, 768), (720, 1280), (1088, 1920)])
def test_colours_are_bt709_and_say_so(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "video.mp4"
    with open_output(path, 24.0, tone(0.3), RATE) as writer:
        writer.write(patches(*size))
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        tags = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range
        frame = next(container.decode(video=0))
    assert tags == (1, 1, 1, 1)  # BT.709 three times, limited range
    assert b"colrnclx\0\1\0\1\0\1\0" in path.read_bytes()
    planes = [np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    assert np.abs(bt709(planes) - PATCHES).max() <= 4
    assert np.abs(seen(frame.to_ndarray(format="rgb24")) - PATCHES).max() <= 4


def test_a_folder_has_colours_to_the_bit(tmp_path: Path) -> None:
    with open_output(tmp_path, 24.0, tone(0.3), RATE) as writer:
        writer.write(patches(64, 96))
    picture = np.asarray(Image.open(tmp_path / "frame_00008.png"))
    assert np.array_equal(picture, patches(64, 96)[8].numpy())


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
    ],
)
@pytest.mark.parametrize("early", [0.0, 0.01, 0.05])
def test_sound_is_as_long_as_the_picture(
    tmp_path: Path, rate: float, exact: Fraction, early: float
) -> None:
    sound = tone(25 / rate - early)
    for target in (tmp_path / "video.MP4", tmp_path):
        with open_output(target, rate, sound, RATE) as writer:
            writer.write(frames(25))
    with av.open(str(tmp_path / "video.MP4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.average_rate == exact
        assert video.duration * video.time_base == 25 / exact
        assert 0 <= audio.duration * audio.time_base - 25 / exact < Fraction(2, RATE)
        heard = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    silent = slice(sound.shape[1] + 1024, math.ceil(25 / exact * RATE))
    assert np.abs(heard[:, silent]).max(initial=0) < 1e-3
    with wave.open(str(tmp_path / "audio.wav")) as file:
        assert file.getnframes() == math.ceil(25 / exact * RATE)


def test_clicks_are_heard_where_they_are(tmp_path: Path) -> None:
    """The encoder's delay is told to players, and silence behind the sound does not move it."""
    sound, places = torch.zeros(2, 47_900), [0, 9600, 40_000, 47_700]
    sound[:, places] = 0.9
    with open_output(tmp_path / "video.mp4", 25.0, sound, RATE) as writer:
        writer.write(frames(25))
    with av.open(str(tmp_path / "video.mp4")) as container:
        first, *rest = container.decode(audio=0)
    heard = np.concatenate([f.to_ndarray() for f in (first, *rest)], axis=1)[0]
    begin = first.pts * RATE * first.time_base
    for place in places:
        near = np.abs(heard[max(0, place - int(begin) - 200) :][:400])
        assert near.argmax() == min(200, place)


@pytest.mark.parametrize("target", ["video.mp4", "."])
def test_a_longer_sound_is_not_cut(tmp_path: Path, target: str) -> None:
    with open_output(tmp_path / target, 25.0, tone(2), RATE) as writer:
        writer.write(frames(25))
    file = tmp_path / ("video.mp4" if target == "video.mp4" else "audio.wav")
    with av.open(str(file)) as container:
        audio = container.streams.audio[0]
        assert audio.duration * audio.time_base == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_the_encoder_refuses_is_our_error(tmp_path: Path, value: float) -> None:
    sound = tone(1)
    sound[:, 5000] = value
    with (
        pytest.raises(MediaError, match="the video cannot be encoded"),
        open_output(tmp_path / "video.mp4", 25.0, sound, RATE) as writer,
    ):
        writer.write(frames(25))
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.slow
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
    assert process.wait(PATIENCE) == 130
    assert "stopped; no partial file was left" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
