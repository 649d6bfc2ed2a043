"""Conditioning images, re-compressed as the model saw them in training, and fitted to a video."""

import io
import math

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from entracte.errors import MediaError


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
