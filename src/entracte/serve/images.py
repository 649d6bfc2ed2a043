"""Taking conditioning images in: checked, decoded here, and written anew under our own names."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from entracte.errors import MediaError
from entracte.files import write_atomically
from entracte.media.read_image import decode_image
from entracte.settings.serve import ServeSettings

from .data_folder import DataFolder
from .http.errors import ApiError, bad_request
from .http.fields import ImageField, Reference, VideoFields

DATA_URL = re.compile(r"data:[\w.+/-]{0,100}(;[\w.+=-]{0,100})*;base64,", re.ASCII)

PARAM = "input_reference"


class FetchImage(Protocol):
    """Fetches an image from elsewhere; raises ApiError where that is not allowed or fails."""

    def __call__(self, url: str, max_bytes: int) -> bytes: ...


def collect(
    fields: VideoFields, files: Sequence[bytes], settings: ServeSettings, fetch: FetchImage
) -> list[tuple[bytes, ImageField]]:
    """Every image's bytes with what was said of it; raises ApiError."""
    said = list(fields.images or [])
    if fields.input_reference is not None:
        reference = fields.input_reference
        url = reference.image_url if isinstance(reference, Reference) else reference
        said.insert(0, ImageField(image=url))
    for _ in range(len(files) - sum(each.image is None for each in said)):
        said.append(ImageField())
    missing = sum(each.image is None for each in said) - len(files)
    if missing > 0:
        raise bad_request(f"images names {missing} more images than there are files.", "images")
    require_few(len(said), settings)
    left = iter(files)
    return [(_bytes(each, left, settings.max_image_bytes, fetch), each) for each in said]


def require_few(count: int, settings: ServeSettings) -> None:
    """Raises ApiError for more images than are taken."""
    if count > settings.max_images:
        raise bad_request(f"At most {settings.max_images} images are taken.", PARAM, "too_many")


def write_images(
    images: Sequence[bytes], folder: DataFolder, video_id: str, max_pixels: int
) -> list[Path]:
    """Decode every image and write it as PNG; raises ApiError for one that cannot be used.

    Nothing of what the client sent is kept but pixels.
    """
    if not images:
        return []
    folder.make_room(video_id)
    paths = []
    for number, data in enumerate(images):
        try:
            image = decode_image(data, f"number {number + 1}", max_pixels)
        except MediaError as error:
            raise bad_request(f"{error}.", PARAM, "invalid_image") from None
        path = folder.image(video_id, number)
        with write_atomically(path) as part:
            image.save(part, format="PNG", compress_level=1)
        paths.append(path)
    return paths


def placed(images: Sequence[ImageField]) -> tuple[dict[str, Any], ...]:
    """What is remembered of every image."""
    return tuple(each.model_dump(include={"frame", "strength", "crf"}) for each in images)


def _bytes(said: ImageField, files: Iterator[bytes], limit: int, fetch: FetchImage) -> bytes:
    if said.image is None:
        data = next(files)
    elif said.image.startswith("data:"):
        data = _of_data_url(said.image)
    else:
        data = fetch(said.image, limit)
    if len(data) > limit:
        words = f"An image has {len(data) / 2**20:.0f} MiB; at most {limit / 2**20:g} are taken."
        raise ApiError(413, words, "image_too_large", PARAM)
    return data


def _of_data_url(url: str) -> bytes:
    head = DATA_URL.match(url)
    if head is None:
        raise bad_request("An image is to be data:image/…;base64,… .", PARAM, "invalid_image")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("An image's base64 is damaged.", PARAM, "invalid_image") from None
