"""A video that is made longer: what stays of it, where, and with which sound."""

from pathlib import Path

import pytest
import torch

from entracte import Engine, ExtendedVideo, Request, Residency
from entracte.errors import RequestError
from entracte.pipeline.latents import Latents, prepare_latents
from entracte.sampling.noise import NoiseSource
from entracte.sampling.tokens import VideoGrid

ROOT = Path(__file__).parent / "data"
SOURCE = ROOT / "pipelines" / "retake.mp4"  # 17 frames of 128 x 96 at 24 a second


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.open(ROOT / "oracle", residency=Residency("resident"))


@pytest.mark.parametrize(
    ("after", "before", "frames", "made"),
    [
        (0.33, 0.0, 25, [3]),
        (0.6, 0.0, 33, [3, 4]),
        (0.0, 0.33, 25, [0, 1]),
        (0.01, 0.01, 33, [0, 1, 4]),
    ],
)
def test_what_is_added_is_made(
    engine: Engine, after: float, before: float, frames: int, made: list[int]
) -> None:
    """Latent frames, of eight frames but for the first, and the sound of the same seconds."""
    request = Request("a", pipeline="extend", extended=ExtendedVideo(SOURCE, after, before))
    prepared = engine.prepare(request)
    bound, given = prepared.resolved.request, prepared.given
    assert (bound.num_frames, bound.height, bound.width) == (frames, 96, 128)
    assert given.frames is not None
    assert given.mel is not None
    added = 8 * (1 if before == 0.01 else round(before * 3))
    source = engine.prepare(
        Request("a", pipeline="extend", extended=ExtendedVideo(SOURCE, 0.3), num_frames=25)
    ).given.frames
    assert source is not None
    assert torch.equal(given.frames[:, :, added : added + 17], source[:, :, :17])
    assert (given.frames[:, :, :added] == given.frames[:, :, added : added + 1]).all()
    assert (given.frames[:, :, added + 17 :] == given.frames[:, :, added + 16 : added + 17]).all()

    grid = VideoGrid.of_pixels(frames, 96, 128, 24.0)
    start = Latents(
        torch.zeros(1, 128, grid.frames, 3, 4), torch.zeros(1, 8, bound.audio_tokens, 16)
    )
    video, audio = prepare_latents(
        start, grid, [], NoiseSource(1), 1.0, kept=(given.video, given.audio)
    )
    by_frame = video.mask.unflatten(0, (grid.frames, 12))
    assert by_frame.amax(1).nonzero().flatten().tolist() == made
    assert by_frame.amin(1).nonzero().flatten().tolist() == made
    seconds = audio.spans[0].mean(-1)
    kept = (seconds > added / 24 + 0.05) & (seconds < (added + 17) / 24 - 0.05)
    gone = (seconds < added / 24 - 0.05) | (seconds > (added + 17) / 24 + 0.05)
    assert kept.any()
    assert gone.any()
    assert (audio.mask[kept] == 0).all()
    assert (audio.mask[gone] == 1).all()


def test_what_cannot_be(engine: Engine) -> None:
    with pytest.raises(RequestError, match="after: say how many seconds"):
        ExtendedVideo(SOURCE)
    extended = ExtendedVideo(SOURCE, 1.0)
    with pytest.raises(RequestError, match="num_frames: 17 are no more than the 24"):
        engine.prepare(Request("a", pipeline="extend", extended=extended, num_frames=17))
