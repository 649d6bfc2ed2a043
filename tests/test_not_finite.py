"""Numbers that are not finite stop a run where they come up, and nothing is written."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from entracte import Engine, Guidance, ImageCondition, LoraSpec, Request, Residency
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.cli.main import run as command
from entracte.errors import NotFinite, OutOfMemory
from entracte.pipeline import decoding as finishing
from entracte.pipeline import latents as decoding
from entracte.pipeline import run as running
from entracte.pipeline.latents import require_finite
from entracte.planner.meta_ops import META
from entracte.planner.meter import meter
from entracte.residency.backends.cuda_stream import device_errors
from entracte.sampling.euler import euler
from entracte.sampling.loop import Sampler
from entracte.sampling.tokens import StreamLatents
from entracte.stages import DECODE_VIDEO, DENOISE
from entracte.synthetic.demo import DISTILLED_LORA

SMALL: dict[str, Any] = {
    "prompt": "A street", "height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 1,
    "video_guidance": Guidance(), "audio_guidance": Guidance(),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    with Engine.open(demo_model, residency=Residency("resident")) as opened:
        yield opened


def spoilt(value: Any, with_what: float) -> Any:
    """The last tensor of what a stage gives back, with one number replaced."""
    if isinstance(value, torch.Tensor):
        value = value.clone()
        value.view(-1)[-1] = with_what
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = "audio" if hasattr(value, "audio") else "latent"
        return dataclasses.replace(value, **{name: spoilt(vars_of(value)[name], with_what)})
    *others, last = value
    return type(value)([*others, spoilt(last, with_what)])


def vars_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


NAN, INFINITY = float("nan"), float("inf")

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numbers", [[NAN], [INFINITY], [-INFINITY], [INFINITY, -INFINITY]])
def test_one_number_is_enough(dtype: torch.dtype, numbers: list[float]) -> None:
    fine, bad = torch.zeros(8, 8, dtype=dtype), torch.zeros(8, 8, dtype=dtype)
    bad.view(-1)[5 : 5 + len(numbers)] = torch.tensor(numbers, dtype=dtype)
    for made in [(bad,), (fine, bad), (bad, fine), (bad.T,)]:
        with pytest.raises(NotFinite, match="^denoise made"):
            require_finite(DENOISE, *made)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_large_numbers_are_finite(dtype: torch.dtype, sign: int) -> None:
    """Though their sum is not."""
    largest = torch.full((8, 8), sign * torch.finfo(dtype).max, dtype=dtype)
    require_finite(DENOISE, largest, largest)


def test_checking_takes_no_memory() -> None:
    pixels = torch.empty(1, 3, 8, 512, 512, dtype=torch.bfloat16, device=META)
    assert meter(lambda: require_finite(DECODE_VIDEO, pixels[..., 1:].mT, pixels)).nbytes < 100


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("function", "stage", "value"),
    [
        ("encode_text", "encode text", NAN),
        ("connect_text", "connect text", INFINITY),
        ("encode_images", "encode images (stage1)", NAN),
        ("upsample", "upsample", NAN),
        ("decode_audio", "decode audio", INFINITY),
    ],
)
def test_the_stage_is_named(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    stage: str,
    value: float,
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "first.png")
    module = finishing if function == "decode_audio" else running
    original: Callable[..., Any] = vars(module)[function]
    monkeypatch.setattr(module, function, lambda *args: spoilt(original(*args), value))
    engine.forget_prompts()
    image = ImageCondition(path=tmp_path / "first.png", frame=0)
    with pytest.raises(NotFinite, match=rf"^{re.escape(stage)} made numbers that are not finite"):
        engine.generate(
            Request(**SMALL, images=(image,)),
            output_path=tmp_path / "video.mp4",
            latents_path=None,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["first.png"]


def test_the_loop_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(*args: Any) -> StreamLatents:
        video, audio = euler(*args)
        return StreamLatents(video, spoilt(audio, -INFINITY))

    monkeypatch.setattr(running, "SAMPLERS", {"euler": Sampler(spoiling)})
    with pytest.raises(NotFinite, match="^denoise made numbers that are not finite"):
        engine.generate(Request(**SMALL), keep_frames=False)


@pytest.mark.parametrize("target", ["video.mp4", "."])
def test_frames_that_are_none(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    original = decoding.decode_tiled
    monkeypatch.setattr(
        decoding, "decode_tiled", lambda *args: (spoilt(x, float("nan")) for x in original(*args))
    )
    with pytest.raises(NotFinite, match="^decode video made numbers"):
        engine.generate(Request(**SMALL), output_path=tmp_path / target)
    assert list(tmp_path.iterdir()) == []


def test_the_next_request_is_right(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrong is not kept for it."""
    before = engine.generate(Request(**SMALL), keep_frames=False).latents
    original = running.connect_text
    with monkeypatch.context() as patch:
        patch.setattr(running, "connect_text", lambda *args: spoilt(original(*args), float("nan")))
        engine.forget_prompts()
        with pytest.raises(NotFinite):
            engine.generate(Request(**SMALL), keep_frames=False)
    after = engine.generate(Request(**SMALL), keep_frames=False).latents
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_lora_is_a_likely_cause(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled = SafetensorsFile(demo_model / DISTILLED_LORA)
    tensors = {name: Located(distilled, name).tensor() for name in distilled.tensors}
    for tensor in tensors.values():  # finite, as their products are not
        tensor.fill_(1e30)
    save_file(tensors, tmp_path / "style.safetensors", distilled.metadata)
    request = Request(**SMALL, loras=(LoraSpec(path=tmp_path / "style.safetensors", strength=0.7),))
    with (
        Engine.open(demo_model, residency=Residency("resident")) as engine,
        pytest.raises(NotFinite, match=r"^denoise made .*a LoRA .*\(style\.safetensors at 0\.7\)"),
    ):
        engine.generate(request)
    (tmp_path / "frames").mkdir()
    flags = ["--model", str(demo_model), "--prompt", "x", "--height", "64", "--width", "64"]
    flags += ["--num-frames", "9", "--num-inference-steps", "1", "--mode", "resident"]
    flags += ["--lora", str(tmp_path / "style.safetensors")]
    flags += ["--output-path", str(tmp_path / "frames")]
    assert command(["generate", *flags]) == 2
    said = capsys.readouterr().err
    assert "denoise made numbers that are not finite" in said
    assert "Traceback" not in said
    assert list((tmp_path / "frames").iterdir()) == []


def test_memory_that_the_cpu_refuses() -> None:
    with pytest.raises(OutOfMemory, match="^computing: "), device_errors("computing"):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(OutOfMemory), device_errors("computing"):
        np.empty(2**60, dtype=np.uint8)
