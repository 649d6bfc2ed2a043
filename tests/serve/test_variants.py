"""Pictures of a finished video."""

from pathlib import Path

import pytest
from PIL import Image

from entracte.serve.variants import DamagedVideo, make_variant

from .fake_runner import video_bytes


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(video_bytes(320, 192))
    return path


def test_a_thumbnail_is_the_first_frame(video: Path) -> None:
    with Image.open(make_variant(video, "thumbnail")) as picture:
        assert (picture.format, picture.size) == ("WEBP", (320, 192))
        assert picture.convert("L").getpixel((10, 10)) < 30


def test_a_spritesheet_runs_from_dark_to_light(video: Path) -> None:
    with Image.open(make_variant(video, "spritesheet")) as sheet:
        assert (sheet.format, sheet.size) == ("JPEG", (5 * 256, 2 * 154))
        grey = sheet.convert("L")
        levels = [grey.getpixel((n % 5 * 256 + 99, n // 5 * 154 + 70)) for n in range(9)]
    assert levels == sorted(levels)
    assert levels[-1] > 120  # the last frame is there


def test_it_is_made_once(video: Path) -> None:
    path = make_variant(video, "thumbnail")
    path.write_bytes(b"kept")
    assert make_variant(video, "thumbnail").read_bytes() == b"kept"


@pytest.mark.parametrize("length", [0, 500])
def test_a_damaged_video(video: Path, length: int) -> None:
    video.write_bytes(video.read_bytes()[:length])
    with pytest.raises(DamagedVideo, match="cannot read"):
        make_variant(video, "spritesheet")
    assert [each.name for each in video.parent.iterdir()] == ["video.mp4"]
