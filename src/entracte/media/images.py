"""Conditioning images, re-compressed as the model saw them in training, and fitted to a video."""

import io
import math

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.error import FFmpegError
from PIL import Image
from torch import Tensor

from entracte.errors import MediaError

# By how many times the scaled image may exceed what is kept of it. Any photograph stays within this
# for any video, and then matches the official implementation bit for bit.
MAX_OVERHANG = 8


def recompress(image: Image.Image, crf: int) -> np.ndarray:
    """Encode an image as one H.264 frame of quality `crf`, and decode it.

    The model was trained on video frames; a clean photograph is unlike anything it has seen. Odd
    sides lose their last row or column. A crf of 0 leaves the image unchanged.

    Returns [height, width, 3] uint8. Raises MediaError for an image that the encoder refuses: one
    smaller than 2 x 2 pixels, or with a side over 16,384.
    """
    if min(image.size) < 2:
        raise MediaError(
            f"an image has {image.width} x {image.height} pixels; at least 2 x 2 are needed"
        )
    pixels = np.array(image)  # a copy, as torch wants it: Pillow's own cannot be written to
    if crf == 0:
        return pixels
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    try:
        return _through_h264(np.ascontiguousarray(pixels[:height, :width]), crf)
    except FFmpegError as error:
        raise MediaError(
            f"an image of {image.width} x {image.height} pixels cannot be compressed as video: "
            f"{error.strerror}"
        ) from error


def _through_h264(pixels: np.ndarray, crf: int) -> np.ndarray:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"}
        )
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def fit(pixels: np.ndarray, height: int, width: int) -> Tensor:
    """Scale an image, [h, w, 3] uint8, to fill a size, crop its centre, and map it to -1..1.

    Needs memory for the image and for a few times the size, whatever the image's shape.

    Returns [1, 3, 1, height, width] float32.
    """
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    filled = (math.ceil(pixels.shape[0] * scale), math.ceil(pixels.shape[1] * scale))
    top, left = (filled[0] - height) // 2, (filled[1] - width) // 2
    if filled[0] * filled[1] > MAX_OVERHANG * height * width:
        image = _sampled(pixels, filled, slice(top, top + height), slice(left, left + width))
    else:
        image = F.interpolate(_planes(pixels), size=filled, mode="bilinear", align_corners=False)
        image = image[:, :, top : top + height, left : left + width]
    return (image / 127.5 - 1.0).unsqueeze(2)


def _sampled(pixels: np.ndarray, filled: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    """A part of the image scaled to `filled`, computed alone; the same up to rounding."""
    above, below, down = _neighbours(pixels.shape[0], filled[0], rows)
    left, right, across = _neighbours(pixels.shape[1], filled[1], columns)
    first = int(above[0])
    image = _planes(pixels[first : int(below[-1]) + 1])
    image = torch.lerp(image[..., left], image[..., right], across)
    return torch.lerp(image[:, :, above - first], image[:, :, below - first], down[:, None])


def _neighbours(length: int, scaled: int, wanted: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Between which two of `length` pixels each wanted one of `scaled` lies, and how far along."""
    centres = torch.arange(wanted.start, wanted.stop, dtype=torch.float64) + 0.5
    places = (centres * length / scaled - 0.5).clamp(0, length - 1)
    before = places.floor().long()
    return before, (before + 1).clamp(max=length - 1), (places - before).float()


def _planes(pixels: np.ndarray) -> Tensor:
    """[h, w, 3] uint8 to [1, 3, h, w] float32."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
