"""Pictures of a finished video, made from its file on first request, then kept beside it."""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from PIL import Image

from entracte.errors import MediaError
from entracte.files import write_atomically
from entracte.request_fields import MAX_SIDE

Variant = Literal["thumbnail", "spritesheet"]

THUMBNAIL_WIDTH = 640

# Frames across and down, evenly spread over the video.
COLUMNS, ROWS = 5, 5
SPRITE_WIDTH = 256

# Pixels of a frame: the most that a request can have.
MAX_PIXELS = MAX_SIDE**2


class DamagedVideo(MediaError):
    """The file of a video cannot be read."""


def variant_path(video: Path, variant: Variant) -> Path:
    """Where it is kept."""
    return video.with_name("thumbnail.webp" if variant == "thumbnail" else "spritesheet.jpg")


def make_variant(video: Path, variant: Variant) -> Path:
    """Make a picture unless it exists.

    Raises DamagedVideo if the video cannot be read, and MediaError if the picture cannot be
    written.
    """
    path = variant_path(video, variant)
    if path.is_file():
        return path
    picture = _thumbnail(video) if variant == "thumbnail" else _spritesheet(video)
    encoded = io.BytesIO()
    picture.save(encoded, format="WEBP" if variant == "thumbnail" else "JPEG", quality=85)
    with write_atomically(path) as part:
        part.write_bytes(encoded.getvalue())
    return path


def _thumbnail(video: Path) -> Image.Image:
    return _pictures(video, lambda _: {0}, THUMBNAIL_WIDTH)[0]


def _spritesheet(video: Path) -> Image.Image:
    sprites = _pictures(video, _spread, SPRITE_WIDTH)
    width, height = sprites[0].size
    columns = min(COLUMNS, len(sprites))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(sprites) / columns) * height))
    for number, sprite in enumerate(sprites):
        sheet.paste(sprite, (number % columns * width, number // columns * height))
    return sheet


def _spread(count: int) -> set[int]:
    """Which of `count` frames a spritesheet shows."""
    cells = max(1, min(COLUMNS * ROWS, count))
    return {round(cell * (count - 1) / max(1, cells - 1)) for cell in range(cells)}


def _pictures(video: Path, wanted: Callable[[int], set[int]], width: int) -> list[Image.Image]:
    """Some frames, scaled to a width, with colours converted by the video's tags.

    wanted: from the number of frames that the file declares to those to read. Raises DamagedVideo
    if there are none.
    """
    try:
        with av.open(str(video)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or not stream.codec_context:  # which an unknown codec lacks
                raise DamagedVideo(f"cannot read {video}: it has no picture that can be decoded")
            if stream.width * stream.height > MAX_PIXELS:
                raise DamagedVideo(f"cannot read {video}: its frames are too large")
            found = list(_frames(container, wanted(stream.frames), width))
    except DamagedVideo:
        raise
    except Exception as error:  # damaged files raise whatever PyAV trips over
        raise DamagedVideo(f"cannot read {video}: {error}") from None
    if not found:
        raise DamagedVideo(f"cannot read {video}: it has no frames")
    return found


def _frames(container: InputContainer, wanted: set[int], width: int) -> Iterator[Image.Image]:
    last = max(wanted)
    for number, frame in enumerate(container.decode(video=0)):
        if number in wanted:
            yield _scaled(Image.fromarray(frame.to_ndarray(format="rgb24")), width)
        if number >= last:
            return


def _scaled(image: Image.Image, width: int) -> Image.Image:
    width = min(width, image.width)
    return image.resize((width, max(1, round(image.height * width / image.width))))
