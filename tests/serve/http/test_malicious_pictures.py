"""Images that are none, are too large once decoded, or say more than pixels."""

import base64
import io
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..running import Local, small
from .asking import PROMPT, encoded, error_of, png
from .conftest import IMAGE_BYTES, IMAGE_PIXELS

FORM = {name: str(value) for name, value in small(PROMPT).items()}


def ask(running: Local, *images: bytes, name: str = "a.png", **fields: Any) -> httpx2.Response:
    """For a video from images, in a form."""
    files = [("input_reference", (name, data, "image/png")) for data in images]
    return running.client.post("/v1/videos", data=FORM | fields, files=files)


def taken(running: Local, image: bytes) -> Image.Image:
    """An image as the service took it in."""
    answer = ask(running, image)
    assert answer.status_code == 200, answer.text
    back = running.client.get(f"/v1/videos/{answer.json()['id']}/images/0")
    assert back.status_code == 200
    assert back.headers["content-type"] == "image/png"
    found = Image.open(io.BytesIO(back.content))
    assert (found.format, found.mode) == ("PNG", "RGB")
    assert not found.info
    return found


def near(pixel: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(pixel, wanted, strict=True))


@dataclass
class Spent:
    """pictures: how many Pillow made room for. peak_bytes: of Python's memory."""

    pictures: int = 0
    peak_bytes: int = 0


@contextmanager
def counted() -> Iterator[Spent]:
    """What the server, which is in this process, spends on what is asked within."""
    spent = Spent()
    before = Image.core.get_stats()["new_count"]
    tracemalloc.start()
    try:
        yield spent
    finally:
        spent.peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        spent.pictures = Image.core.get_stats()["new_count"] - before


def huge_png(side: int) -> bytes:
    """A PNG that claims to be `side` pixels wide and high, and is nearly empty."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def huge_webp() -> bytes:
    side = (16383).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + side + side
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended


def huge_gif() -> bytes:
    return b"GIF89a\xff\xff\xff\xff" + png()[10:]


def with_chunk(data: bytes) -> bytes:
    """A PNG with a megabyte of compressed text for every kilobyte of file."""
    text = b"Comment\0\0" + zlib.compress(data)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    plain = png()
    return plain[:33] + chunk + plain[33:]


@pytest.mark.parametrize(
    "image",
    [
        huge_png(60_000),
        huge_png(2**31 - 1),
        huge_webp(),
        huge_gif(),
        encoded(Image.new("1", (7100, 7100)), "PNG"),
        encoded(Image.new("1", (50_001, 1000)), "TIFF", compression="group4"),
        with_chunk(b"\0" * 70_000_000),
    ],
    ids=["png", "largest png", "webp", "gif", "true png", "true tiff", "text"],
)
def test_what_would_be_large_is_not_decoded(attacked: Local, image: bytes) -> None:
    with counted() as spent:
        error_of(ask(attacked, image), 400, "invalid_image", "input_reference")
    assert spent.pictures == 0
    assert spent.peak_bytes < 8_000_000
    with counted() as spent:
        assert ask(attacked, png()).status_code == 200
    assert spent.pictures > 0


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\0",
        b"text",
        encoded(Image.effect_noise((64, 64), 50), "PNG")[:-500],
        png()[:30],
        png()[:8],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
        b"push graphic-context\nimage over 0,0 0,0 'https://example.com/'\npop graphic-context",
        b"PK\x03\x04" + b"\0" * 60,
        b"GIF89a" + b"\xff" * 20,
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 30,
        b"II*\0\x08\0\0\0" + b"\xff" * 60,
        b"BM" + b"\xff" * 60,
        b"\xff\xd8\xff\xe1\xff\xff" + b"\xff" * 60,
        encoded(Image.new("RGB", (9, 9)), "ICO"),
        encoded(Image.new("RGB", (9, 9)), "PPM"),
    ],
    ids=lambda image: repr(image[:12]),
)
def test_what_is_no_image_of_the_kinds_that_are_taken_is_refused(
    attacked: Local, image: bytes
) -> None:
    error = error_of(ask(attacked, image), 400, "invalid_image", "input_reference")
    assert "/" not in error["message"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (encoded(Image.new("1", (16_390, 1000)), "PNG"), "a side may have at most 16384"),
        (encoded(Image.new("1", (2, 16_000)), "PNG"), "at most 20 times the other"),
        (png((1, 1)), "2 x 2 are needed"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC, which is not read"),
        (huge_png(60_000), "has too many pixels"),
    ],
    ids=["side", "strip", "pixel", "heic", "bomb"],
)
def test_what_is_wrong_with_a_picture_is_said(attacked: Local, image: bytes, words: str) -> None:
    assert words in error_of(ask(attacked, image), 400, "invalid_image")["message"]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damaged_exif_is_the_clients_fault(attacked: Local, kind: str) -> None:
    image = encoded(Image.new("RGB", (20, 10)), kind, exif=b"Exif\0\0II*\0")
    error_of(ask(attacked, image), 400, "invalid_image")


def test_one_bad_image_of_several_leaves_none_of_them(attacked: Local) -> None:
    images = '[{"frame": 0}, {"frame": 8}]'
    answer = ask(attacked, png(), b"text", images=images)
    assert "number 2" in error_of(answer, 400, "invalid_image")["message"]


def test_limits_are_those_of_the_settings(attacked_narrow: Local) -> None:
    edge = int(IMAGE_PIXELS**0.5)
    assert ask(attacked_narrow, png((edge, edge))).status_code == 200
    error_of(ask(attacked_narrow, png((edge, edge + 2))), 400, "invalid_image")
    large = png() + b"\0" * IMAGE_BYTES
    error_of(ask(attacked_narrow, large), 413, "image_too_large", "input_reference")
    coded = "data:image/png;base64," + base64.b64encode(large).decode()
    asked = small(PROMPT, input_reference=coded)
    answer = attacked_narrow.client.post("/v1/videos", json=asked)
    error_of(answer, 413, "image_too_large", "input_reference")
    error_of(ask(attacked_narrow, png(), png(), png()), 400, "too_many", "input_reference")
    several = [{"image": "data:,"}] * 3
    for path in ("/v1/videos", "/v1/videos/estimate"):
        answer = attacked_narrow.client.post(path, json=small(PROMPT, images=several))
        error_of(answer, 400, "too_many", "input_reference")


@pytest.mark.parametrize(
    "image",
    [
        "data:image/png;base64,not base64!",
        "data:image/png;base64,AAA",
        "data:image/png,plain",
        "data:text/html;base64,PGI+",
        "data:" + "x" * 10_000 + ";base64,AA==",
        "data:image/png" + ";a=b" * 100_000,
        "data:;base64,",
    ],
    ids=lambda image: image[:24],
)
def test_what_is_no_data_url_of_an_image_is_refused(attacked: Local, image: str) -> None:
    asked = small(PROMPT, images=[{"image": image}])
    error_of(attacked.client.post("/v1/videos", json=asked), 400, "invalid_image")


@pytest.mark.parametrize(
    "image", ["file:///etc/passwd", "/etc/passwd", "../../entracte.db", "ftp://example.com/a", ""]
)
def test_no_file_is_read_by_its_path(attacked: Local, image: str) -> None:
    asked = small(PROMPT, input_reference=image)
    answer = attacked.client.post("/v1/videos", json=asked)
    error_of(answer, 400, "url_not_allowed", "input_reference")


def test_only_the_first_of_many_frames_is_kept(attacked: Local) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", *["lime", "blue"] * 400)]
    for kind in ("GIF", "PNG", "WEBP"):
        image = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        found = taken(attacked, image)
        assert near(found.getpixel((9, 9)), (255, 0, 0)), kind
        assert getattr(found, "n_frames", 1) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_upright(attacked: Local, kind: str) -> None:
    image = Image.new("RGB", (48, 32), "blue")
    image.paste("red", (0, 0, 48, 8))  # is on the right once it is turned
    exif = Image.Exif()
    exif[0x0112] = 6
    found = taken(attacked, encoded(image, kind, exif=exif))
    assert found.size == (32, 48)
    assert near(found.getpixel((28, 24)), (255, 0, 0))
    assert near(found.getpixel((8, 24)), (0, 0, 255))


def test_colours_are_what_the_image_shows(attacked: Local) -> None:
    def shown(image: bytes) -> Any:
        return taken(attacked, image).getpixel((4, 4))

    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert near(shown(encoded(ink, "JPEG", quality=95)), (255, 0, 0))
    assert near(shown(encoded(ink, "TIFF")), (255, 0, 0))
    assert near(shown(png(mode="L", color="gray")), (128, 128, 128))
    assert near(shown(png(mode="1", color="white")), (255, 255, 255))
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert near(shown(encoded(clear, "PNG")), (255, 255, 255))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    assert near(shown(encoded(palette, "PNG")), (0, 0, 255))
    assert near(shown(encoded(palette, "PNG", transparency=0)), (255, 255, 255))
    assert near(shown(encoded(palette, "GIF", transparency=0)), (255, 255, 255))
    assert near(shown(png(mode="I;16", color=65535)), (255, 255, 255))  # type: ignore[arg-type]
    assert near(shown(png(mode="I;16", color=0)), (0, 0, 0))  # type: ignore[arg-type]


def test_nothing_but_pixels_is_kept(attacked: Local) -> None:
    info = PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    image = encoded(Image.new("RGB", (16, 16)), "PNG", pnginfo=info, exif=exif)
    answer = ask(attacked, image + b"<script>alert(2)</script>")
    folder = attacked.service.folder.of_video(answer.json()["id"])
    kept = (folder / "image-0.png").read_bytes()
    assert b"script" not in kept
    assert b"where it was taken" not in kept


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.png",
        "/tmp/evil.png",
        "..\\..\\evil.png",
        "evil\0.png",
        "C:\\evil.png",
        ".",
        "..",
        "~/.ssh/authorized_keys",
        "x" * 3000,
        "наивно.png",
        "a\r\nX-Evil: 1.png",
        "$(id).png",
    ],
    ids=lambda name: repr(name[:16]),
)
def test_the_name_of_a_file_is_nobodys_concern(attacked: Local, name: str) -> None:
    answer = ask(attacked, png(), name=name)
    assert answer.status_code == 200, answer.text
    folder = attacked.service.folder.of_video(answer.json()["id"])
    assert attacked.ended(folder.name)["status"] == "completed"
    assert {path.name for path in folder.iterdir()} == {"image-0.png", "video.mp4"}
