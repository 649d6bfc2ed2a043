"""Reading images within limits: what a user hands us may be anything."""

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from entracte.errors import MediaError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def read_image(path: Path) -> Image.Image:
    """Read an image file as RGB, upright by its EXIF orientation, on white where transparent.

    Raises MediaError if it is missing, over 50 MiB or 50 megapixels, of a format that is not
    allowed, has pixels that are neither colours nor 8 or 16 bits of grey, or is damaged.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MediaError(f"image {path} has {size / 2**20:.0f} MiB; at most 50 are read")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read image {path}: {error.strerror}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, from bytes; `name` is what errors call the image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images before our own, lower limit is reached.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise MediaError(
                f"image {name} has {width} x {height} pixels; at most {max_pixels / 1e6:g} "
                "megapixels are read"
            )
        image.load()
        upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise MediaError(f"{name} is no image in a format of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"image {name} is damaged: {error}") from None
    upright = _eight_bits(upright, name)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return upright.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of more bits as 8: Pillow would cut it off at 255."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("I", "F"):
        raise MediaError(
            f"image {name} has numbers for pixels, whose white nobody knows; save it with 8 or 16 "
            "bits a channel"
        )
    return image
