"""Converts pixels of any colour space to sRGB, by the profile that comes with them."""

import io

from PIL import Image, ImageCms

# Colour spaces of profiles, by the Pillow mode that each describes.
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}

# A profile that moves no colour by more levels than this is sRGB, however it is encoded.
SAME = 2


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an opaque image of any mode, with 8 bits per channel, to RGB in sRGB.

    Without a profile, or with one that cannot be read or is of another colour space, the numbers
    are taken for sRGB, as viewers do.
    """
    if image.mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if image.mode not in SPACES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    if profile is None:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != SPACES[image.mode] or _is_srgb(source):
            return image.convert("RGB")
        return _converted(image, source)
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # as it is not done in place
    return converted


def _is_srgb(source: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile is sRGB up to rounding, so that nothing needs converting."""
    if source.profile.xcolor_space != SPACES["RGB"]:
        return False
    levels = range(0, 256, 15)
    colours = bytes(level for r in levels for g in levels for b in levels for level in (r, g, b))
    probe = Image.frombytes("RGB", (len(levels) ** 2, len(levels)), colours)
    moved = zip(colours, _converted(probe, source).tobytes(), strict=True)
    return all(abs(before - after) <= SAME for before, after in moved)
