"""diffusers' transformer on the same weights, as a second witness, in float32.

It agrees wherever a stream has one timestep. With two, its audio-video attention takes either both
its modulations from the stream's own timesteps or both from the other stream's noise level; the
official one, and ours, takes scale and shift from the first and the gate from the second.
"""

import pytest
from diffusers import LTX2VideoTransformer3DModel

from entracte.checkpoints.diffusers_names import transformer_to_published
from entracte.models.transformer import Pass, Transformer

from ..diffusers_models import diffusers_transformer
from .oracle import FLOAT32, Oracle, distance, witness_velocities

BLOCK = frozenset([1])


@pytest.fixture(scope="module")
def witness(float32_transformer: Transformer) -> LTX2VideoTransformer3DModel:
    sizes = float32_transformer.config
    model = diffusers_transformer(
        sizes.video.heads, sizes.video.head_dim, sizes.audio.head_dim, sizes.layers
    )
    ours = float32_transformer.state_dict()
    names = {name: transformer_to_published(name) for name in model.state_dict()}
    assert set(names.values()) == set(ours)
    model.load_state_dict({theirs: ours[name] for theirs, name in names.items()})
    return model.eval()


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("evaluated", "options"),
    [
        (Pass(), {}),
        (Pass(isolated=True), {"isolate_modalities": True}),
        (
            Pass(skip_video=BLOCK, skip_audio=BLOCK),
            {"spatio_temporal_guidance_blocks": [1]},
        ),
    ],
    ids=["plain", "isolated", "skipped"],
)
@pytest.mark.parametrize("call", ["t2v.forward.0", "distilled.forward.2", "one_stage.forward.0"])
def test_velocities(
    oracle: Oracle,
    float32_transformer: Transformer,
    witness: LTX2VideoTransformer3DModel,
    call: str,
    evaluated: Pass,
    options: dict,
) -> None:
    context = oracle.context("w10 w11 w12")
    video, audio = oracle.inputs(call, float32_transformer, [context])
    (ours,) = float32_transformer(video, audio, [evaluated])
    theirs = witness_velocities(witness, oracle, call, (video, audio), context, **options)
    assert distance(ours.video, theirs[0]) < FLOAT32
    assert distance(ours.audio, theirs[1]) < FLOAT32
