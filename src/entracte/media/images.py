"""Conditioning images: read within limits, re-compressed as the model saw them in training."""

import io
import math
import warnings
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from entracte.errors import MediaError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def read_image(path: Path) -> Image.Image:
    """Read an image file as RGB, upright by its EXIF orientation, on white where transparent.

    Raises MediaError if it is missing, over 50 MiB or 50 megapixels, of a format that is not
    allowed, or damaged.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MediaError(f"image {path} has {size / 2**20:.0f} MiB; at most 50 are read")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read image {path}: {error.strerror}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """As `read_image`, from bytes; `name` is what errors call the image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images before our own, lower limit is reached.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise MediaError(
                f"image {name} has {width} x {height} pixels; at most 50 megapixels are read"
            )
        image.load()
        upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise MediaError(f"{name} is no image in a format of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"image {name} is damaged: {error}") from None
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return upright.convert("RGB")


def recompress(image: Image.Image, crf: int) -> np.ndarray:
    """Pass an image through one H.264 frame at a quality of `crf`.

    The model was trained on video frames; a clean photograph is outside what it knows. Odd sides
    lose their last row or column. A crf of 0 leaves the image unchanged.

    Returns [height, width, 3] uint8. Raises MediaError for an image of less than 2 x 2 pixels.
    """
    pixels = np.asarray(image)
    if min(image.size) < 2:
        raise MediaError(f"an image has {image.width} x {image.height} pixels; 2 x 2 are needed")
    if crf == 0:
        return pixels
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def fit(pixels: np.ndarray, height: int, width: int) -> Tensor:
    """Scale an image, [h, w, 3] uint8, to fill a size, crop its centre, and map it to -1..1.

    Returns [1, 3, 1, height, width] float32.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    scale = max(height / image.shape[2], width / image.shape[3])
    filled = (math.ceil(image.shape[2] * scale), math.ceil(image.shape[3] * scale))
    image = F.interpolate(image, size=filled, mode="bilinear", align_corners=False)
    top, left = (filled[0] - height) // 2, (filled[1] - width) // 2
    image = image[:, :, top : top + height, left : left + width]
    return (image / 127.5 - 1.0).unsqueeze(2)
