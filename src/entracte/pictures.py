"""Pictures as programs have them, kept as bytes that a request can carry anywhere."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    import numpy as np
    from PIL.Image import Image

    # A file's path or content, or a picture in memory: [height, width, 3] uint8 in numpy.
    Picture = str | PathLike[str] | bytes | Image | np.ndarray[Any, Any]

WANTED = "must be a path, a file's bytes, a PIL image, or a numpy array [height, width, 3] of uint8"


def as_bytes(given: object) -> bytes:
    """A picture as the bytes of a file; pixels become a PNG, which loses nothing.

    Raises ValueError for anything else.
    """
    match given:
        case bytes():
            return given
        case bytearray():
            return bytes(given)
        case io.BytesIO():
            return given.getvalue()
    import numpy as np
    from PIL import Image

    if isinstance(given, Image.Image):
        return _png(given)
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
            raise ValueError(f"path: {WANTED}, not of {given.dtype} {list(given.shape)}")
        return _png(Image.fromarray(np.ascontiguousarray(given)))
    raise ValueError(f"path: {WANTED}, not {type(given).__name__}")


def _png(image: "Image") -> bytes:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    encoded = io.BytesIO()
    kept = upright if upright.mode in PNG_MODES else upright.convert("RGB")
    kept.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
