"""Damaged videos, of which thumbnails and spritesheets are asked for."""

import resource
from pathlib import Path

import pytest
import torch

from entracte.errors import MediaError
from entracte.media.output import open_output
from entracte.serve.variants import make_variant, variant_path

from .mutate import fuzz

MAX_GROWTH = 2**31

TOKENS = (
    b"moov", b"trak", b"mdia", b"stbl", b"stsd", b"stts", b"stsz", b"stsc", b"stco", b"co64",
    b"ctts", b"elst", b"avcC", b"colr", b"mdat", b"ftyp", b"tkhd", b"mvhd", b"esds", b"moof",
    b"\0\0\0\x01", b"\x67\x64\0\x0b", b"\x68\xeb",
)  # fmt: skip


def seeds(folder: Path) -> list[bytes]:
    found = []
    for number, (frames, height, width) in enumerate([(9, 64, 96), (1, 32, 32), (33, 128, 64)]):
        path = folder / f"seed{number}.mp4"
        pixels = torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8)
        with open_output(path, 24.0, torch.zeros(2, frames * 2000), 48_000) as writer:
            writer.write(pixels)
        found.append(path.read_bytes())
    return found


@pytest.mark.slow
def test_damaged_videos_end_in_our_error(tmp_path: Path) -> None:
    valid = seeds(tmp_path)
    video = tmp_path / "video.mp4"

    def read(data: bytes) -> None:
        video.write_bytes(data)
        try:
            for variant in ("thumbnail", "spritesheet"):
                variant_path(video, variant).unlink(missing_ok=True)
                assert make_variant(video, variant).stat().st_size > 0
        finally:
            left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
            assert not left

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(read, valid, (MediaError,), TOKENS) > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MAX_GROWTH
