"""Reads images within limits, since what a user gives us may be anything."""

import io
import threading
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError, features

from entracte.errors import MediaError
from entracte.units import MIB, mebibytes

from .srgb import to_srgb

MAX_BYTES = 50 * MIB
MAX_PIXELS = 50_000_000

# The re-compression as H.264 takes sides of 2 to 16,384 pixels.
MIN_SIDE, MAX_SIDE = 2, 16_384

# Of the longer side to the shorter one: a video would show only a sliver of a longer strip.
MAX_RATIO = 20

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF") + (
    ("AVIF",) if features.check("avif") else ()
)

# What people give us instead of a picture in one of these formats, by its first bytes.
OTHERS = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"<!DOCTYPE html": "HTML",
    b"version https://git-lfs": "a Git LFS pointer",
}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

# Warnings are filtered for the whole process, so two threads must not do it at once. The lock also
# keeps the memory of several large images from adding up.
_one_at_a_time = threading.Lock()


def read_image(path: Path) -> Image.Image:
    """Read an image file as sRGB, upright by its EXIF orientation, on white where transparent.

    Of an animation, the first frame. Nothing else of the file is kept.

    Raises MediaError if it is missing, over 50 MiB or 50 megapixels, has a side of less than 2 or
    more than 16,384 pixels or one side over 20 times the other, is of a format that is not allowed,
    has pixels that are neither colours nor 8 or 16 bits of grey, or is damaged.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MediaError(
                f"image {path} has {mebibytes(size)}; at most {mebibytes(MAX_BYTES)} are read"
            )
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read image {path}: {error.strerror}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Like `read_image`, from bytes; `name` is what errors call the image."""
    with _one_at_a_time, warnings.catch_warnings():
        # Pillow warns about large images before we can refuse them, and about odd metadata.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _require_shape(image.size, name, max_pixels)
            image.load()
            return _plain(ImageOps.exif_transpose(image), name)
        except MediaError:
            raise
        except UnidentifiedImageError:
            raise MediaError(f"{name} is {_other(data)}; {', '.join(FORMATS)} are read") from None
        except Image.DecompressionBombError:
            raise MediaError(
                f"image {name} has too many pixels; at most {max_pixels / 1e6:g} megapixels are "
                "read"
            ) from None
        except Exception as error:  # damaged files raise whatever Pillow's decoders trip over
            raise MediaError(f"image {name} is damaged: {error}") from None


def _require_shape(size: tuple[int, int], name: str, max_pixels: int) -> None:
    shape = f"image {name} has {size[0]} x {size[1]} pixels"
    shorter, longer = sorted(size)
    if shorter * longer > max_pixels:
        raise MediaError(f"{shape}; at most {max_pixels / 1e6:g} megapixels are read")
    if shorter < MIN_SIDE:
        raise MediaError(f"{shape}; at least {MIN_SIDE} x {MIN_SIDE} are needed")
    if longer > MAX_SIDE:
        raise MediaError(f"{shape}; a side may have at most {MAX_SIDE}")
    if longer > MAX_RATIO * shorter:
        raise MediaError(f"{shape}; one side may be at most {MAX_RATIO} times the other")


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Convert any image to opaque sRGB, without metadata."""
    profile = image.info.get("icc_profile")
    image = _eight_bits(image, name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        grey = image.mode in ("L", "LA", "La")
        colours = to_srgb(layer.convert("L" if grey else "RGB"), profile)
        colours.putalpha(layer.getchannel("A"))
        plain = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), colours).convert(
            "RGB"
        )
    else:
        plain = to_srgb(image, profile)
    plain.info.clear()
    return plain


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Reduce 16-bit grey to 8 bits: Pillow would clip it at 255."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("I", "F"):
        raise MediaError(
            f"image {name} has floating-point pixels of unknown range; save it with 8 or 16 "
            "bits a channel"
        )
    return image


def _other(data: bytes) -> str:
    """What a file is that Pillow does not recognise, judging by its first bytes."""
    if data[4:8] == b"ftyp":
        brands = data[8:64]
        if any(brand in brands for brand in HEIC_BRANDS):
            return "HEIC, which is not read; save it as JPEG"
        return "AVIF" if b"avif" in brands else "a video, or another file like it"
    for start, kind in OTHERS.items():
        if data.lstrip()[: len(start)].lower() == start.lower():
            return f"{kind}, which is not read"
    return "no image in a known format"
