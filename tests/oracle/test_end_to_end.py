"""The five recorded cases through the engine, from the files to the latents."""

import pytest
import torch

from entracte import Engine

from .oracle import BFLOAT16, CASES, GUIDED, Oracle, distance

# The others are compared stage by stage in test_pipeline.
QUICK = ("keyframes", "distilled")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_latents_and_forwards(oracle: Oracle, engine: Engine, name: str) -> None:
    result = engine.generate(oracle.request(name), keep_frames=False)
    assert result.trace.counts["forwards"] == oracle.case(name)["forwards"]
    assert result.latents.keys() == {
        f"{stage}.{stream}_latent"
        for stage in (["stage1"] if name == "one_stage" else ["stage1", "stage2"])
        for stream in ("video", "audio")
    }
    for latent, value in result.latents.items():
        guided = latent.startswith("stage1") and name != "distilled"
        tolerance = GUIDED if guided else BFLOAT16
        assert distance(value, oracle[f"{name}.{latent}"]) < tolerance


@pytest.mark.slow
def test_prompts_are_encoded_once(oracle: Oracle, engine: Engine) -> None:
    engine.forget_prompts()
    first = engine.generate(oracle.request("t2v"), keep_frames=False)
    assert first.trace.counts["text_encodings"] == 2
    second = engine.generate(oracle.request("keyframes"), keep_frames=False)
    assert second.trace.counts["text_encodings"] == 1  # the negative prompt is known
    third = engine.generate(oracle.request("t2v"), keep_frames=False)
    assert "text_encodings" not in third.trace.counts
    for name, latent in first.latents.items():
        assert torch.equal(latent, third.latents[name])
