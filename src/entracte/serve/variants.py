"""Pictures of a finished video: made from its file when first asked for, then kept beside it."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import av
from av.error import FFmpegError
from PIL import Image

from entracte.errors import MediaError
from entracte.files import write_atomically

Variant = Literal["thumbnail", "spritesheet"]

THUMBNAIL_WIDTH = 640

# Frames across and down, evenly spread over the video.
COLUMNS, ROWS = 5, 5
SPRITE_WIDTH = 256


def variant_path(video: Path, variant: Variant) -> Path:
    """Where it is kept."""
    return video.with_name("thumbnail.webp" if variant == "thumbnail" else "spritesheet.jpg")


def make_variant(video: Path, variant: Variant) -> Path:
    """Make a picture unless it is there; raises MediaError for a video that cannot be read."""
    path = variant_path(video, variant)
    if path.is_file():
        return path
    try:
        picture = _thumbnail(video) if variant == "thumbnail" else _spritesheet(video)
    except FFmpegError as error:
        raise MediaError(f"cannot read {video}: {error}") from None
    encoded = io.BytesIO()
    picture.save(encoded, format="WEBP" if variant == "thumbnail" else "JPEG", quality=85)
    with write_atomically(path) as part:
        part.write_bytes(encoded.getvalue())
    return path


def _thumbnail(video: Path) -> Image.Image:
    return _scaled(next(_frames(video, {0})), THUMBNAIL_WIDTH)


def _spritesheet(video: Path) -> Image.Image:
    with av.open(str(video)) as container:
        count = container.streams.video[0].frames
    cells = min(COLUMNS * ROWS, count)
    wanted = {round(cell * (count - 1) / max(1, cells - 1)) for cell in range(cells)}
    sprites = [_scaled(frame, SPRITE_WIDTH) for frame in _frames(video, wanted)]
    width, height = sprites[0].size
    columns = min(COLUMNS, len(sprites))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(sprites) / columns) * height))
    for number, sprite in enumerate(sprites):
        sheet.paste(sprite, (number % columns * width, number // columns * height))
    return sheet


def _frames(video: Path, wanted: set[int]) -> Iterator[Image.Image]:
    last = max(wanted)
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield Image.fromarray(frame.to_ndarray(format="rgb24"))
            if number == last:
                return


def _scaled(image: Image.Image, width: int) -> Image.Image:
    width = min(width, image.width)
    return image.resize((width, max(1, round(image.height * width / image.width))))
