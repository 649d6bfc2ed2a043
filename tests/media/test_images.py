import contextlib
import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from entracte import ImageCondition
from entracte.errors import MediaError, RequestError
from entracte.media import read_image as reading
from entracte.media.images import fit, recompress
from entracte.media.read_image import FORMATS, decode_image, read_image

from . import icc


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot read image .*gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MediaError, match="is no image in a known format; PNG, JPEG"):
        read_image(tmp_path / "text.png")


def test_a_format_that_is_not_allowed() -> None:
    with pytest.raises(MediaError, match="is no image in a known format"):
        decode_image(encoded(Image.new("RGB", (8, 8)), "EPS"), "picture")


def test_truncated() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match="picture is damaged"):
        decode_image(encoded(noise)[:2000], "picture")


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    (tmp_path / "big.png").write_bytes(bytes(200))
    with pytest.raises(MediaError, match="has 200 bytes; at most 100 bytes are read"):
        read_image(tmp_path / "big.png")


def test_too_many_pixels_are_refused_before_decoding() -> None:
    """An 8,000 x 8,000 image of one colour is a small file and 192 MB of pixels."""
    bomb = encoded(Image.new("1", (8000, 8000)))
    assert len(bomb) < 20_000
    with pytest.raises(MediaError, match="8000 x 8000 pixels; at most 50 megapixels"):
        decode_image(bomb, "bomb")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled(kind: str) -> None:
    ramp = np.array([[0, 0x0100, 0x8000, 0xFFFF]] * 2, np.uint16)
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


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 1), "1 x 1 pixels; at least 2 x 2 are needed"),
        ((64, 1), "2 x 2 are needed"),
        ((16_385, 900), "16385 x 900 pixels; a side may have at most 16384"),
        ((900, 20_000), "a side may have at most 16384"),
        ((16_000, 2), "16000 x 2 pixels; one side may be at most 20 times the other"),
        ((2, 41), "at most 20 times the other"),
    ],
)
def test_shapes_that_are_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        decode_image(encoded(Image.new("1", size)), "strip")


@pytest.mark.parametrize("size", [(2, 2), (2, 40), (3, 60), (40, 2)])
def test_the_smallest_and_longest_shapes_are_used(size: tuple[int, int]) -> None:
    image = decode_image(encoded(Image.new("RGB", size)), "strip")
    assert fit(recompress(image, 33), 64, 96).shape == (1, 3, 1, 64, 96)


@pytest.mark.parametrize("size", [(1, 5), (17_000, 2)])
def test_what_the_encoder_refuses_is_our_error(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=f"an image .* {size[0]} x {size[1]} pixels"):
        recompress(Image.new("RGB", size), 33)


def scaled_whole(pixels: np.ndarray, height: int, width: int) -> torch.Tensor:
    """The official way, at any cost: scale everything, then crop."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    scale = max(height / image.shape[2], width / image.shape[3])
    filled = [math.ceil(side * scale) for side in image.shape[2:]]
    image = F.interpolate(image, size=filled, mode="bilinear", align_corners=False)
    top, left = (filled[0] - height) // 2, (filled[1] - width) // 2
    image = image[:, :, top : top + height, left : left + width]
    return (image / 127.5 - 1.0).unsqueeze(2)


sides = st.integers(2, 120)


@settings(max_examples=60, deadline=None)
@given(source=st.tuples(sides, sides), height=st.integers(1, 120), width=st.integers(1, 120))
def test_fit_is_the_official_way(source: tuple[int, int], height: int, width: int) -> None:
    pixels = np.random.default_rng(source).integers(0, 256, (*source, 3), np.uint8)
    fitted, whole = fit(pixels, height, width), scaled_whole(pixels, height, width)
    across = max(source) / min(source) * max(height, width) / min(height, width)
    if across < 7:  # any photograph for any video: to the bit
        assert torch.equal(fitted, whole)
    assert fitted.shape == whole.shape
    assert torch.allclose(fitted, whole, atol=2e-5)


@pytest.mark.parametrize("source", [(2, 16_384), (16_384, 2)])
def test_fit_takes_memory_for_what_is_seen(source: tuple[int, int]) -> None:
    """Scaled whole, these would have 25 GB at this size."""
    pixels = np.zeros((*source, 3), np.uint8)
    pixels[source[0] // 2 :, source[1] // 2 :] = 255
    fitted = fit(pixels, 512, 512)
    assert fitted.shape == (1, 3, 1, 512, 512)
    assert fitted[..., 0, 0].max().item() == -1
    assert fitted[..., -1, -1].min().item() == 1


def test_a_bomb_has_too_many_pixels_and_is_not_damaged() -> None:
    head = struct.pack(">4sIIBBBBB", b"IHDR", 20_000, 20_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I17sI", 13, head, zlib.crc32(head))
    bomb += struct.pack(">I4s", 9, b"IDAT") + bytes(13)
    with pytest.raises(MediaError, match="bomb has too many pixels; at most 50 megapixels"):
        decode_image(bomb, "bomb")


def test_displays_with_more_colours_are_converted() -> None:
    """The managed colour is that of the ICC's reference, to rounding."""
    image = Image.new("RGB", (4, 4), (200, 120, 90))
    seen = decode_image(encoded(image, "JPEG", icc_profile=icc.rgb(), quality=100), "p3")
    assert np.abs(np.subtract(seen.getpixel((1, 1)), (213, 115, 83))).max() <= 2


@pytest.mark.parametrize(
    ("mode", "colour", "profile", "seen"),
    [
        ("RGB", (200, 120, 90), icc.rgb(), (213, 115, 83)),
        ("RGBA", (200, 120, 90, 255), icc.rgb(), (213, 115, 83)),
        ("RGBA", (200, 120, 90, 0), icc.rgb(), (255, 255, 255)),
        ("P", 1, icc.rgb(), (213, 115, 83)),
        ("L", 128, icc.grey(1.0), (188, 188, 188)),
        ("LA", (128, 255), icc.grey(1.0), (188, 188, 188)),
        # Of another colour space, damaged, empty: the numbers are taken for sRGB.
        ("L", 128, icc.rgb(), (128, 128, 128)),
        ("RGB", (200, 120, 90), icc.grey(1.0), (200, 120, 90)),
        ("RGB", (200, 120, 90), icc.rgb()[:150], (200, 120, 90)),
        ("RGB", (200, 120, 90), b"no profile", (200, 120, 90)),
    ],
)
def test_profiles(mode: str, colour: object, profile: bytes, seen: tuple[int, ...]) -> None:
    image = Image.new(mode, (4, 4), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 120, 90])
    found = decode_image(encoded(image, icc_profile=profile), "picture")
    assert (found.mode, found.getpixel((1, 1))) == ("RGB", pytest.approx(seen, abs=1))


def test_srgb_keeps_its_bits() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert decode_image(encoded(noise, icc_profile=profile), "n").tobytes() == noise.tobytes()


def test_lab_and_cmyk_are_colours() -> None:
    lab = Image.merge("LAB", [Image.new("L", (4, 4), v) for v in (255, 128, 128)])
    assert decode_image(encoded(lab, "TIFF"), "l").getpixel((0, 0)) == pytest.approx((255,) * 3, 2)
    for kind in ("TIFF", "JPEG"):
        cmyk = encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), kind, icc_profile=icc.rgb())
        assert decode_image(cmyk, "c").getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_nothing_of_the_file_is_kept_but_pixels(kind: str) -> None:
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x010E] = "SECRET"
    said = encoded(image, kind, exif=exif, icc_profile=icc.rgb() + b"SECRET", dpi=(72, 72))
    assert b"SECRET" in said
    read = decode_image(said, "picture")
    assert read.info == {}
    assert b"SECRET" not in encoded(read) + encoded(read, "TIFF")


@contextlib.contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_exif(kind: str, exif: bytes) -> bytes:
    return encoded(Image.new("RGB", (20, 10)), kind, exif=b"Exif\0\0" + exif)


ORIENTED = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x0112, 3, 1, 6) + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("length", [4, 8, 9, 12, 20, len(ORIENTED)])
@pytest.mark.parametrize("place", [None, 8, 10, 12, 14])
def test_damaged_exif(kind: str, length: int, place: int | None) -> None:
    """The pixels as they are, or upright, or our error; no other one, and no warning."""
    exif = bytearray(ORIENTED[:length])
    if place is not None and place < length:
        exif[place] = 0xFF
    with no_warning(), contextlib.suppress(MediaError):
        assert decode_image(with_exif(kind, bytes(exif)), "p").size in ((20, 10), (10, 20))


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(orientation: int) -> None:
    exif = bytearray(ORIENTED)
    exif[18] = orientation
    turned = decode_image(with_exif("PNG", bytes(exif)), "picture")
    assert turned.size == ((10, 20) if orientation in (5, 6, 7, 8) else (20, 10))


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow cannot read AVIF")
def test_avif_is_read() -> None:
    red = encoded(Image.new("RGB", (32, 16), "red"), "AVIF")
    assert decode_image(red, "red").getpixel((3, 3)) == pytest.approx((255, 0, 0), abs=6)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read; save it as JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0hevcmsf1", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "a video"),
        (b"\xff\x0a\xfa\x1f\0\0", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0", "JPEG 2000"),
        (b'<svg xmlns="x"/>', "SVG"),
        (b"<!doctype html><title>Not found</title>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"%PDF-1.7", "PDF"),
        (b"", "no image in a known format"),
    ],
)
def test_other_files_are_named(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(data + bytes(64))
    with pytest.raises(MediaError, match=rf"photo.jpg is {name}.*; PNG, JPEG"):
        read_image(tmp_path / "photo.jpg")


def test_threads_leave_warnings_as_they_were() -> None:
    image, before = encoded(Image.new("RGB", (256, 256))), list(warnings.filters)
    threads = [threading.Thread(target=decode_image, args=(image, "p")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize(
    "path", ["https://a.example/b.png", "http://a/b", "data:image/png;base64,"]
)
def test_urls_are_no_paths(path: str) -> None:
    with pytest.raises(RequestError, match="path: is a URL; media are read from files"):
        ImageCondition(path=path, frame=0)
    with pytest.raises(RequestError, match="is a URL"):
        ImageCondition(path=Path(path), frame=0)


@pytest.mark.parametrize("size", [(10, 400), (400, 10), (64, 64), (33, 77)])
def test_fit_fills_any_size(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 255, np.uint8)
    fitted = fit(pixels, 64, 96)
    assert fitted.shape == (1, 3, 1, 64, 96)
    assert fitted.min().item() == pytest.approx(1) == fitted.max().item()
