"""Accepts conditioning images: checked, decoded, and re-encoded under names of our own."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from entracte.config.serve import ServeSettings
from entracte.errors import MediaError
from entracte.files import write_atomically
from entracte.media.read_image import decode_image
from entracte.units import mebibytes

from .data_folder import DataFolder
from .errors import ImageTooLarge, RequestRefused
from .fields import ImageField, VideoFields

DATA_URL = re.compile(r"data:[\w.+/-]{0,100}(;[\w.+=-]{0,100})*;base64,", re.ASCII)

PARAM = "input_reference"


def collect(
    fields: VideoFields, files: Sequence[bytes], settings: ServeSettings
) -> list[tuple[ImageField, bytes | str]]:
    """Every image, as what is said of it and its bytes or URL; raises RequestRefused."""
    said = list(fields.images or [])
    if fields.input_reference is not None:
        said.insert(0, ImageField(image=fields.input_reference))
    for _ in range(len(files) - sum(each.image is None for each in said)):
        said.append(ImageField())
    missing = sum(each.image is None for each in said) - len(files)
    if missing > 0:
        raise RequestRefused(f"images names {missing} more images than there are files.", "images")
    require_few(len(said), settings)
    for each in said:
        if (
            each.image is not None
            and not each.image.startswith("data:")
            and "://" not in each.image
        ):
            words = (
                f"{PARAM}: must be a file or a data URL. A part of a form that has no filename is "
                "no file."
            )
            raise RequestRefused(words, PARAM, "url_not_allowed")
    left = iter(files)
    return [(each, next(left) if each.image is None else each.image) for each in said]


def require_few(count: int, settings: ServeSettings) -> None:
    """Raises RequestRefused for more images than are taken."""
    if count > settings.max_images:
        raise RequestRefused(f"At most {settings.max_images} images are taken.", PARAM, "too_many")


def is_elsewhere(url: str) -> bool:
    """Whether an image is to be fetched."""
    return not url.startswith("data:")


def write_image(
    source: bytes | str, folder: DataFolder, video_id: str, number: int, settings: ServeSettings
) -> int:
    """Decode an image and write it as PNG; returns the bytes that it takes.

    source: its bytes, or a data URL. Nothing of what the client sent is kept but pixels. Raises
    RequestRefused for one that cannot be used.
    """
    data = source if isinstance(source, bytes) else _of_data_url(source)
    limit = settings.max_image_bytes
    if len(data) > limit:
        words = f"An image has {mebibytes(len(data))}; at most {mebibytes(limit)} are taken."
        raise ImageTooLarge(words, PARAM, "image_too_large")
    try:
        image = decode_image(data, f"number {number + 1}", settings.max_image_pixels)
    except MediaError as error:
        raise RequestRefused(f"{error}.", PARAM, "invalid_image") from None
    path = folder.image(video_id, number)
    with write_atomically(path) as part:
        image.save(part, format="PNG", compress_level=1)
    return path.stat().st_size


def placed(images: Sequence[ImageField]) -> list[dict[str, Any]]:
    """What is kept of every image beside its pixels."""
    return [each.model_dump(include={"frame", "strength", "crf"}) for each in images]


def _of_data_url(url: str) -> bytes:
    head = DATA_URL.match(url)
    if head is None:
        raise RequestRefused("An image must be data:image/…;base64,… .", PARAM, "invalid_image")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused("An image's base64 is damaged.", PARAM, "invalid_image") from None
