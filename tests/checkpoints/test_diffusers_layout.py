"""The diffusers folder layout: the same model saved by diffusers' own classes loads the same."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.vocoder import LTX2VocoderWithBWE

from entracte import Engine, Request, Residency
from entracte.checkpoints.description import describe_path
from entracte.checkpoints.diffusers_layout import open_diffusers
from entracte.checkpoints.loading import build_component
from entracte.checkpoints.model_header import ModelHeader, read_model_header
from entracte.errors import CheckpointError
from entracte.models.registry import LTX_2_3
from entracte.synthetic.demo import DISTILLED_LORA, GEMMA
from tests.components import load_component

from ..diffusers_models import diffusers_transformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Path:
    """A tiny LTX-2.3 in diffusers' layout, saved by diffusers."""
    root = tmp_path_factory.mktemp("diffusers")
    torch.manual_seed(0)
    width, audio_width, text_width = 128, 64, 64
    models = {
        "transformer": diffusers_transformer(
            heads=4, head_dim=width // 4, audio_head_dim=audio_width // 4, layers=4
        ),
        "connectors": LTX2TextConnectors(
            caption_channels=text_width,
            text_proj_in_factor=4,
            video_connector_num_attention_heads=4,
            video_connector_attention_head_dim=32,
            video_connector_num_layers=1,
            video_gated_attn=True,
            audio_connector_num_attention_heads=4,
            audio_connector_attention_head_dim=16,
            audio_connector_num_layers=1,
            audio_gated_attn=True,
            rope_type="split",
            per_modality_projections=True,
            video_hidden_dim=width,
            audio_hidden_dim=audio_width,
            proj_bias=True,
        ),
        "vae": AutoencoderKLLTX2Video(
            block_out_channels=(128, 128, 256, 256),
            decoder_block_out_channels=(16, 32, 32, 64),
            layers_per_block=(1, 0, 1, 0, 1),
            decoder_layers_per_block=(1, 0, 1, 0, 1),
            decoder_spatio_temporal_scaling=(True, True, True, True),
            decoder_inject_noise=(False,) * 5,
            upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
            upsample_residual=(False, False, False, False),
            upsample_factor=(2, 2, 1, 2),
            decoder_causal=False,
            decoder_spatial_padding_mode="zeros",
        ),
        "audio_vae": AutoencoderKLLTX2Audio(ch_mult=(1, 1, 1), num_res_blocks=0),
        "vocoder": LTX2VocoderWithBWE(
            hidden_channels=64, bwe_hidden_channels=64, final_act_fn="clamp"
        ),
        "latent_upsampler": LTX2LatentUpsamplerModel(
            mid_channels=32, num_blocks_per_stage=1, use_rational_resampler=False
        ),
    }
    for name, model in models.items():
        for tensor in model.parameters():
            torch.nn.init.normal_(tensor, 0, 0.05)
        model.to(torch.bfloat16).save_pretrained(root / name)
    gemma = demo_model / GEMMA
    (root / "text_encoder").mkdir()
    (root / "tokenizer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (root / "text_encoder" / name).write_bytes((gemma / name).read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (root / "tokenizer" / name).write_bytes((gemma / name).read_bytes())
    (root / "model_index.json").write_text(json.dumps({"_class_name": "LTX2Pipeline"}))
    return root


@pytest.mark.slow
def test_every_component_is_complete(folder: Path) -> None:
    version, components = open_diffusers(folder)
    assert version is LTX_2_3
    assert len(components) == 7
    assert read_model_header(str(folder), (), distilled=False) == ModelHeader("2.3", layers=4)
    for component in components.values():
        build_component(component, LTX_2_3)


@pytest.mark.slow
def test_the_video_vae_computes_the_same(folder: Path) -> None:
    theirs = AutoencoderKLLTX2Video.from_pretrained(folder / "vae").float().eval()
    ours = load_component(
        open_diffusers(folder)[1]["video_vae"], torch.device("cpu"), torch.float32
    )
    with torch.inference_mode():
        latents = torch.randn(1, 128, 2, 2, 3)
        assert torch.allclose(ours.decoder(latents), theirs.decoder(latents), atol=1e-5)
        pixels = torch.randn(1, 3, 9, 64, 96)
        expected = theirs.encode(pixels).latent_dist.mode()
        assert torch.allclose(ours.encoder(pixels), expected, atol=1e-5)


def test_the_connectors_compute_the_same(folder: Path) -> None:
    theirs = LTX2TextConnectors.from_pretrained(folder / "connectors").float().eval()
    ours = load_component(
        open_diffusers(folder)[1]["connectors"], torch.device("cpu"), torch.float32
    )
    states = torch.randn(5, 64, 4)
    padded = torch.zeros(1, 1024, 64, 4)
    padded[0, -5:] = states
    mask = torch.zeros(1, 1024)
    mask[0, -5:] = 1
    with torch.inference_mode():
        context = ours(states)
        their_video, their_audio, _ = theirs(padded, mask)
    assert torch.allclose(context.video, their_video, atol=1e-4)
    assert torch.allclose(context.audio, their_audio, atol=1e-4)


@pytest.mark.slow
def test_a_video_is_made(folder: Path, demo_model: Path) -> None:
    lora = demo_model / DISTILLED_LORA
    engine = Engine.open(folder, distilled_lora=lora, residency=Residency("resident"))
    request = Request(prompt="a", height=64, width=64, num_frames=9, num_inference_steps=1)
    result = engine.generate(request)
    assert result.frames is not None
    assert result.frames.shape == (9, 64, 64, 3)


def test_it_is_described(folder: Path) -> None:
    (described,) = describe_path(folder)
    assert described.kind == "diffusers folder"
    assert {part.name for part in described.parts} >= {"transformer", "vocoder", "upsampler"}


def test_another_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    with pytest.raises(CheckpointError, match="holds a WanPipeline pipeline, not an LTX-2 one"):
        Engine.open(tmp_path)


def test_a_missing_component(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LTX2Pipeline"}))
    with pytest.raises(CheckpointError, match="text_encoder does not exist"):
        Engine.open(tmp_path)
