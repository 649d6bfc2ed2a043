"""Damaged pictures of every format that is read."""

import io
import resource

import numpy as np
import pytest
from PIL import Image

from entracte.errors import MediaError
from entracte.media.images import fit
from entracte.media.read_image import FORMATS, decode_image

from ..media import icc
from .mutate import fuzz

MAX_PIXELS = 1_000_000
MAX_GROWTH = 2**30

# Parts of formats that have lengths, offsets and types of their own.
TOKENS = (
    b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"acTL", b"fcTL", b"IEND", b"VP8X",
    b"ICCP", b"EXIF", b"ANMF", b"ALPH", b"\xff\xd8", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1\x00\x10",
    b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b"\x12\x01\x03\0", b"\x01\x12\0\x03", b"acsp", b"mluc",
    b"ispe", b"av1C", b"colr", b"iloc", b"GIF89a", b"\x21\xf9\x04", b"\x2c\0\0\0\0",
)  # fmt: skip


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8))
    exif = colours.getexif()
    exif[0x0112], exif[0x010E] = 6, "A street"
    kept = {"exif": exif, "icc_profile": icc.rgb()}
    clear, grey = colours.convert("RGBA"), colours.convert("L")
    clear.putalpha(grey)
    lab = Image.merge("LAB", colours.split())
    two = {"save_all": True, "append_images": [colours.rotate(90)]}
    found = [
        encoded(colours, "PNG", **kept),
        encoded(clear, "PNG", **two),
        encoded(colours.quantize(16), "PNG", transparency=3),
        encoded(Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40)), "PNG"),
        encoded(grey.convert("1"), "PNG"),
        encoded(colours, "JPEG", **kept),
        encoded(colours.convert("CMYK"), "JPEG", progressive=True),
        encoded(grey, "JPEG", icc_profile=icc.grey(2.2)),
        encoded(clear, "WEBP", lossless=True, **kept),
        encoded(colours, "WEBP", **two),
        encoded(colours, "BMP"),
        encoded(colours.quantize(16), "GIF", **two),
        encoded(lab, "TIFF"),
        *(encoded(colours, "TIFF", compression=how, **kept) for how in ("tiff_lzw", "jpeg")),
        encoded(grey.convert("1"), "TIFF", compression="group4"),
        encoded(clear, "TIFF", compression="tiff_deflate"),
    ]
    if "AVIF" in FORMATS:
        found += [encoded(colours, "AVIF", **kept), encoded(clear, "AVIF")]
    return found


def read(data: bytes) -> None:
    image = decode_image(data, "picture", MAX_PIXELS)
    assert (image.mode, image.info) == ("RGB", {})
    assert image.width * image.height <= MAX_PIXELS
    assert fit(np.array(image), 64, 96).isfinite().all()


@pytest.mark.slow
def test_damaged_images_end_in_our_error() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(read, seeds(), (MediaError,), TOKENS) > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MAX_GROWTH
