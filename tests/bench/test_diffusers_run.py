"""diffusers' pipelines on the same weights: the same latents, and times that can be believed."""

from pathlib import Path

import pytest
import torch

from entracte import Engine, ImageCondition, Request
from entracte.bench.diffusers_result import DiffusersResult, latent_distance
from entracte.bench.diffusers_run import DiffusersTwoStage
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.recipes import Guidance
from entracte.residency.policy import Residency
from entracte.result import Result

pytest.importorskip("peft", reason="diffusers' LoRAs need it")

CPU = torch.device("cpu")

# Of float32 rounding after two guided steps.
FLOAT32 = 1e-5
# Of bfloat16 rounding, which guidance multiplies.
BFLOAT16 = 0.1

REQUEST = Request(prompt="a red fox", height=128, width=128, num_frames=9, num_inference_steps=2)


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Engine:
    return Engine.open(demo_model, dtype="float32", device="cpu", residency=Residency("resident"))


@pytest.fixture(scope="module")
def diffusers(engine: Engine) -> DiffusersTwoStage:
    return DiffusersTwoStage(engine.source, CPU, torch.float32)


@pytest.fixture(scope="module")
def ours(engine: Engine) -> Result:
    return engine.generate(REQUEST)


@pytest.fixture(scope="module")
def theirs(diffusers: DiffusersTwoStage) -> DiffusersResult:
    return diffusers.run(REQUEST)


@pytest.mark.slow
def test_the_latents_are_ours(ours: Result, theirs: DiffusersResult) -> None:
    distances = latent_distance(ours.latents, theirs.latents)
    assert max(distances.values()) < FLOAT32, distances


def test_frames_and_sound_are_ours(ours: Result, theirs: DiffusersResult) -> None:
    assert ours.frames is not None
    assert theirs.frames.shape == ours.frames.shape
    assert (theirs.frames.int() - ours.frames.int()).abs().max() <= 1
    assert theirs.audio.shape == ours.audio.shape
    assert torch.allclose(theirs.audio, ours.audio, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 11, "frame_rate": 16.0, "width": 192, "num_frames": 17},
        {
            "video_guidance": Guidance(cfg=2.0, stg=0.5, stg_blocks=(1,), modality=1.0),
            "audio_guidance": Guidance(cfg=4.0, stg=0.7, stg_blocks=(1,), modality=2.0),
        },
        {
            "video_guidance": Guidance(cfg=1.0, stg=1.0, rescale=0.3),
            "audio_guidance": Guidance(cfg=1.0, stg=1.0, rescale=0.3),
        },
    ],
    ids=["shape", "guidance", "one prompt"],
)
def test_other_requests(engine: Engine, diffusers: DiffusersTwoStage, changes: dict) -> None:
    request = REQUEST.model_copy(update=changes)
    distances = latent_distance(engine.generate(request).latents, diffusers.run(request).latents)
    assert max(distances.values()) < FLOAT32, distances


@pytest.mark.slow
def test_a_second_run_is_the_first_again(
    diffusers: DiffusersTwoStage, theirs: DiffusersResult
) -> None:
    again = diffusers.run(REQUEST).latents
    assert set(latent_distance(theirs.latents, again).values()) == {0.0}


@pytest.mark.slow
def test_bfloat16_is_near(demo_model: Path) -> None:
    with Engine.open(demo_model, device="cpu", residency=Residency("resident")) as engine:
        ours = engine.generate(REQUEST)
        theirs = DiffusersTwoStage(engine.source, CPU, torch.bfloat16).run(REQUEST)
    distances = latent_distance(ours.latents, theirs.latents)
    assert max(distances.values()) < BFLOAT16, distances


def test_times_close(theirs: DiffusersResult) -> None:
    names = [name for name, _ in theirs.stages]
    assert len(set(names)) == len(names)
    assert {"encode text", "denoise", "upsample", "switch to stage2", "refine"} <= set(names)
    total = sum(seconds for _, seconds in theirs.stages)
    assert 0.9 * theirs.seconds < total <= theirs.seconds
    by_name = dict(theirs.stages)
    assert len(theirs.steps["denoise"]) == 2
    assert len(theirs.steps["refine"]) == 3
    for name, steps in theirs.steps.items():
        assert sum(steps) <= by_name[name]
    assert theirs.peak_bytes > 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"images": (ImageCondition(path=Path("a.png"), frame=0),)}, "encoder of pictures"),
        ({"images": (ImageCondition(path=Path("a.png"), frame=8),)}, "the first frame"),
        ({"pipeline": "one-stage"}, "not one-stage"),
        ({"audio_guidance": Guidance(cfg=7, stg=0, modality=3)}, "0 to mean the video's"),
        (
            {
                "video_guidance": Guidance(stg=1, stg_blocks=(0,)),
                "audio_guidance": Guidance(stg=1, stg_blocks=(1,)),
            },
            "the same stg_blocks",
        ),
        (
            {"video_guidance": Guidance(cfg=0.5), "audio_guidance": Guidance(cfg=1)},
            "unless it is above 1",
        ),
    ],
    ids=["encoder", "images", "pipeline", "zero", "blocks", "below one"],
)
def test_refusals(diffusers: DiffusersTwoStage, changes: dict, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        diffusers.run(REQUEST.model_copy(update=changes))


def test_a_model_without_lora(engine: Engine) -> None:
    source = engine.source
    bare = ModelSource(source.version, source.components, source.tokenizer, None)
    with pytest.raises(CheckpointError, match="distilled LoRA"):
        DiffusersTwoStage(bare, CPU, torch.float32)


def test_distance_of_other_latents() -> None:
    with pytest.raises(ValueError, match="on one side"):
        latent_distance({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert latent_distance({"a": torch.ones(4)}, {"a": torch.zeros(4)}) == {"a": 1.0}
