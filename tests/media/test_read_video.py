"""Frames of a video are those that it shows at their times, upright, or it is refused."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from entracte.errors import MediaError
from entracte.media.read_video import Resampling, read_frames, upright, video_facts

LEVELS = tuple(range(20, 240, 20))


def write_video(path: Path, times: list[int], size: int = 32) -> Path:
    """Grey frames, each lighter than the one before, at these 24ths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = size * 2, size, "yuv420p"
        stream.time_base = Fraction(1, 24)
        for time, level in zip(times, LEVELS, strict=False):
            pixels = np.full((size, size * 2, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: Path, frames: int, rate: int) -> tuple[list[int], Resampling]:
    """Which frame of the file each one is."""
    counts = Resampling()
    found = list(read_frames(path, frames, Fraction(rate), counts))
    assert {frame.shape for frame in found} == {(32, 64, 3)}
    return [round(float(frame.mean()) / 20) - 1 for frame in found], counts


def test_frames_of_an_even_rate_are_taken_one_by_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", list(range(9)))
    facts = video_facts(path)
    assert (facts.width, facts.height, facts.frame_rate, facts.frames) == (64, 32, 24, 9)
    assert shown(path, 9, 24) == ([*range(9)], Resampling())
    assert Resampling().words == ""


@pytest.mark.parametrize(
    ("times", "frames", "rate", "wanted", "counts"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], 5, 12, [0, 2, 4, 6, 8], (0, 4)),
        ([0, 1, 2, 3, 4], 9, 48, [0, 0, 1, 1, 2, 2, 3, 3, 4], (4, 0)),
        ([0, 1, 4, 5, 6], 7, 24, [0, 1, 1, 1, 2, 3, 4], (2, 0)),
    ],
)
def test_other_frames_are_repeated_or_left_out(
    tmp_path: Path,
    times: list[int],
    frames: int,
    rate: int,
    wanted: list[int],
    counts: tuple[int, int],
) -> None:
    found, resampling = shown(write_video(tmp_path / "a.mp4", times), frames, rate)
    assert found == wanted
    assert (resampling.repeated, resampling.dropped) == counts
    assert f"{counts[0]} were shown again and {counts[1]} left out" in resampling.words


def test_rotation_is_counterclockwise() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert upright(pixels, 0).tolist() == pixels.tolist()
    assert upright(pixels, 90)[:, 0].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert upright(pixels, -90)[:, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for path, message in (
        (tmp_path / "missing.mp4", "cannot read video .*: No such file"),
        (text, "cannot be decoded"),
    ):
        with pytest.raises(MediaError, match=message):
            video_facts(path)
    short = write_video(tmp_path / "short.mp4", [0, 1, 2])
    with pytest.raises(MediaError, match="has 3 frames at 24 a second; 9 are needed"):
        list(read_frames(short, 9, Fraction(24), Resampling()))
