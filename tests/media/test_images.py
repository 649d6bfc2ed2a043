import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entracte.errors import MediaError
from entracte.media import read_image as reading
from entracte.media.images import fit, recompress
from entracte.media.read_image import decode_image, read_image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot read image .*gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MediaError, match="is no image in a format of PNG, JPEG"):
        read_image(tmp_path / "text.png")


def test_a_format_that_is_not_allowed() -> None:
    with pytest.raises(MediaError, match="is no image in a format of"):
        decode_image(encoded(Image.new("RGB", (8, 8)), "EPS"), "picture")


def test_truncated() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match="picture is damaged"):
        decode_image(encoded(noise)[:2000], "picture")


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    (tmp_path / "big.png").write_bytes(bytes(200))
    with pytest.raises(MediaError, match="at most 50 are read"):
        read_image(tmp_path / "big.png")


def test_too_many_pixels_are_refused_before_decoding() -> None:
    """An 8,000 x 8,000 image of one colour is a small file and 192 MB of pixels."""
    bomb = encoded(Image.new("1", (8000, 8000)))
    assert len(bomb) < 20_000
    with pytest.raises(MediaError, match="8000 x 8000 pixels; at most 50 megapixels"):
        decode_image(bomb, "bomb")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled(kind: str) -> None:
    ramp = np.array([[0, 0x0100, 0x8000, 0xFFFF]], np.uint16)
    read = decode_image(encoded(Image.fromarray(ramp), kind), "ramp")
    assert np.array(read)[0].tolist() == [[value] * 3 for value in (0, 1, 128, 255)]


def test_pixels_without_a_white_are_refused() -> None:
    with pytest.raises(MediaError, match="save it with 8 or 16 bits"):
        decode_image(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "map")


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = decode_image(encoded(image, "JPEG", exif=exif), "picture")
    assert turned.size == (10, 20)


def test_transparency_becomes_white() -> None:
    clear = decode_image(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), "picture")
    assert clear.getpixel((0, 0)) == (255, 255, 255)


def test_crf_zero_changes_nothing() -> None:
    image = Image.effect_noise((33, 21), 80).convert("RGB")
    assert np.array_equal(recompress(image, 0), np.asarray(image))
    smaller = recompress(image, 33)
    assert smaller.shape == (20, 32, 3)
    assert not np.array_equal(smaller, np.asarray(image)[:20, :32])


def test_one_pixel_cannot_be_compressed() -> None:
    with pytest.raises(MediaError, match="2 x 2 are needed"):
        recompress(Image.new("RGB", (1, 5)), 33)


@pytest.mark.parametrize("size", [(10, 400), (400, 10), (64, 64), (33, 77)])
def test_fit_fills_any_size(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 255, np.uint8)
    fitted = fit(pixels, 64, 96)
    assert fitted.shape == (1, 3, 1, 64, 96)
    assert fitted.min().item() == pytest.approx(1) == fitted.max().item()
