"""Conditioning images from files: read, re-compressed, and kept as pixels."""

from collections.abc import Sequence

from entracte.media.images import recompress
from entracte.media.read_image import read_image
from entracte.request import ImageCondition

from .encode_images import PreparedImage


def prepare_images(images: Sequence[ImageCondition], default_crf: int) -> list[PreparedImage]:
    """Read all images of a request. Raises MediaError for one that cannot be used."""
    return [
        PreparedImage(
            recompress(
                read_image(image.path),
                default_crf if image.crf is None else image.crf,
            ),
            image.frame,
            image.strength,
        )
        for image in images
    ]
