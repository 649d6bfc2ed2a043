"""Python in few words: prompts, pictures in memory, sizes and seconds, results that save."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entracte.binding import bind
from entracte.engine import Engine
from entracte.errors import MediaError, RequestError
from entracte.media.tags import read_settings_of
from entracte.request import ImageCondition, LoraSpec, Request
from entracte.versions import DEFAULTS_2_3

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_size_and_seconds_stand_for_other_fields() -> None:
    exact = Request("a", size="1280x704")
    assert (exact.width, exact.height, exact.output_height) == (1280, 704, None)
    cut = Request("a", size="1280x720", seconds=5)
    assert (cut.width, cut.height, cut.output_width, cut.output_height) == (1280, 768, 1280, 720)
    assert bind(cut, DEFAULTS_2_3).num_frames == 121
    assert bind(Request("a", seconds=2, frame_rate=25), DEFAULTS_2_3).num_frames == 49


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "1280x720", "height": 64}, "size: is given beside height or width"),
        ({"size": "853x480"}, "size: 853x480 has an odd side"),
        ({"size": "large"}, "size: must be a size such as 1280x720, not 'large'"),
        ({"size": (768, 512)}, "size: must be a size such as 1280x720"),
        ({"seconds": 2, "num_frames": 9}, "seconds: is given beside num_frames"),
        ({"seconds": -1}, "seconds: must be more than 0"),
        ({"image": np.zeros((2, 2), np.float32)}, r"path: .* not of float32 \[2, 2\]"),
        ({"image": 3}, "path: must be a path, .* not int"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Request("a", **options)
    with pytest.raises(RequestError, match="seconds: 120 at 24 frames a second are 2,881 frames"):
        bind(Request("a", seconds=120), DEFAULTS_2_3)


def pixels(data: object) -> np.ndarray:
    assert isinstance(data, bytes)
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pictures_in_memory_lose_nothing() -> None:
    image = Image.fromarray(PIXELS)
    file = io.BytesIO()
    image.save(file, "PNG")
    for given in (image, PIXELS, file, file.getvalue(), bytearray(file.getvalue())):
        (found,) = Request("a", image=given).images  # type: ignore[arg-type]
        assert np.array_equal(pixels(found.data), PIXELS)
        assert (found.frame, found.strength) == (0, 1.0)
    cmyk = Request("a", image=image.convert("CMYK")).images[0]
    assert pixels(cmyk.data).shape == PIXELS.shape


def test_lists_of_what_there_is() -> None:
    request = Request("a", images=["a.png", ImageCondition(PIXELS, 8)], loras=["x.safetensors"])
    assert [each.frame for each in request.images] == [0, 8]
    assert request.images[0].path == Path("a.png")
    assert request.loras == (LoraSpec("x.safetensors"),)


def test_a_mode_and_budgets_make_a_residency(demo_model: Path) -> None:
    with Engine.open(demo_model, device="cpu", mode="fused", device_memory="24GiB") as engine:
        assert engine._planner.wanted.device_memory == 24 * 2**30
        assert engine._planner.wanted.mode == "fused"
    for options, words in (
        ({"device_memory": "a lot"}, "device_memory: must be bytes, or a size such as 24GiB"),
        ({"mode": "fused", "residency": engine._planner.wanted}, "give one or the other"),
    ):
        with pytest.raises(RequestError, match=words):
            Engine.open(demo_model, device="cpu", **options)


@pytest.mark.slow
def test_a_prompt_a_picture_and_a_result(demo_model: Path, tmp_path: Path) -> None:
    with Engine.open(demo_model, device="cpu", mode="resident", dtype="float32") as engine:
        small: dict[str, Any] = {"size": "100x64", "seconds": 0.4, "num_inference_steps": 1}
        path = tmp_path / "a.png"
        Image.fromarray(np.repeat(np.repeat(PIXELS, 16, 0), 16, 1)).save(path)
        from_file = engine.generate("A street", image=path, seed=4, **small)
        from_memory = engine.generate("A street", image=Image.open(path), seed=4, **small)
        several = engine.generate(["A street", Request("A lighthouse", **small)], **small)
        with pytest.raises(RequestError, match="seed: part of a request"):
            engine.generate(Request("a"), seed=3)
        with pytest.raises(RequestError, match="a prompt, or a Request"):
            engine.generate(3)  # type: ignore[call-overload]
        unkept = engine.generate("A street", keep_frames=False, **small)
    assert from_file.frames is not None
    assert from_file.frames.equal(from_memory.frames)
    assert [each.request.prompt for each in several] == ["A street", "A lighthouse"]
    assert (from_file.seed, from_file.fps, from_file.size) == (4, 24.0, (100, 64))
    assert repr(from_file) == "Result(100x64, 0.4 s, seed 4)"
    assert [each.size for each in from_file.pil()] == [(100, 64)] * 9
    saved = from_file.save(tmp_path / "saved.mp4")
    assert read_settings_of(saved)["images"] == [
        {"name": "a.png", "frame": 0, "strength": 1.0, "crf": 33}
    ]
    assert from_file._repr_html_().startswith("<video controls loop")
    with pytest.raises(MediaError, match="frames were not kept"):
        unkept.save(tmp_path / "unkept.mp4")
