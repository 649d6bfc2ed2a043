"""diffusers' transformers of LTX-2.0 and 2.5 on the same recorded inputs, in float32."""

from dataclasses import replace

import pytest
import torch
from diffusers import LTX2VideoTransformer3DModel

from entracte.checkpoints.diffusers_names import transformer_to_published
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.connectors import TextContext
from entracte.models.registry import LTX_2_0, LTX_2_5, ModelVersion
from tests.components import load_component

from .oracle import FLOAT32, distance, witness_velocities
from .pack import CPU, VersionPack

OF_2_5 = {
    "gated_attn": True,
    "audio_gated_attn": True,
    "cross_attn_mod": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "ff_bias": False,
    "use_keyframes_abs_pos_embedding": True,
}


@pytest.mark.parametrize(
    ("version", "folder", "file", "layers", "options"),
    [
        (LTX_2_0, "ltx-2.0", "checkpoint.safetensors", 3, {"caption_channels": 48}),
        (LTX_2_5, "ltx-2.5", "distilled-transformer.safetensors", 2, OF_2_5),
    ],
    ids=["2.0", "2.5"],
)
def test_velocities(
    version: ModelVersion, folder: str, file: str, layers: int, options: dict
) -> None:
    pack = VersionPack(folder, version, layers)
    _, found = open_checkpoint([SafetensorsFile(pack.root / file)])
    ours = load_component(found["transformer"], CPU, torch.float32, version)
    sizes = ours.config
    theirs = LTX2VideoTransformer3DModel(
        num_attention_heads=sizes.video.heads,
        attention_head_dim=sizes.video.head_dim,
        cross_attention_dim=sizes.video.context_dim,
        audio_num_attention_heads=sizes.audio.heads,
        audio_attention_head_dim=sizes.audio.head_dim,
        audio_cross_attention_dim=sizes.audio.context_dim,
        num_layers=layers,
        rope_type="split",
        **options,
    ).eval()
    weights = ours.state_dict()
    names = {name: transformer_to_published(name) for name in theirs.state_dict()}
    assert set(names.values()) == set(weights)
    theirs.load_state_dict({name: weights[published] for name, published in names.items()})

    torch.manual_seed(0)
    context = TextContext(*(torch.randn(1, 1024, width) for width in sizes.context_widths))
    call = "distilled.forward.1"
    video, audio = pack.inputs(call, ours, [context])
    marked, marks = 0, {}
    if version is LTX_2_5:
        mask = pack[f"{call}.video.keyframes_mask"]
        marked, marks = int(mask.sum()), {"video_keyframes_mask": mask}
    (velocity,) = ours(replace(video, pictures=((0, marked),)), audio)
    witnessed = witness_velocities(theirs, pack, call, (video, audio), context, **marks)
    assert distance(velocity.video, witnessed[0]) < FLOAT32
    assert distance(velocity.audio, witnessed[1]) < FLOAT32
