from pathlib import Path

import pytest
import torch

from entracte.checkpoints.diffusers_names import (
    connectors_to_diffusers,
    connectors_to_published,
    transformer_to_diffusers,
    transformer_to_published,
)
from entracte.checkpoints.lora.describe import published_parameters
from entracte.checkpoints.lora.names import Names
from entracte.errors import LoraError

from .model import ATTENTION, CONNECTOR, RANK, SHAPES, added, opened, pair, random, write

QUERY = f"{ATTENTION}.to_q"
FLAT = QUERY.replace(".", "_")

# How trainers write the key of a module's factors: its name, and what follows for down and up.
PEFT = "lora_A.weight", "lora_B.weight"
KOHYA = "lora_down.weight", "lora_up.weight"
NAMINGS = {
    "published": (f"diffusion_model.{QUERY}", *PEFT),
    "whole checkpoint": (f"model.diffusion_model.{QUERY}", *PEFT),
    "bare": (QUERY, *PEFT),
    "diffusers": (f"transformer.{QUERY}", *PEFT),
    "PEFT": (f"base_model.model.{QUERY}", *PEFT),
    "PEFT, default": (f"base_model.model.{QUERY}", "lora_A.default", "lora_B.default"),
    "PEFT, named": (f"base_model.model.{QUERY}", "lora_A.style.weight", "lora_B.style.weight"),
    "PEFT, no weight": (f"base_model.model.{QUERY}", "lora_A", "lora_B"),
    "PEFT of a pipeline": (f"base_model.model.transformer.{QUERY}", *PEFT),
    "PEFT within": (f"transformer.base_model.model.{QUERY}", *PEFT),
    "PEFT of a checkpoint": (
        f"base_model.model.model.diffusion_model.{QUERY}", *PEFT),
    "official trainer": (f"velocity_model.{QUERY}", *PEFT),
    "dotted kohya": (f"diffusion_model.{QUERY}", *KOHYA),
    "kohya": (f"lora_unet_{FLAT}", *KOHYA),
    "kohya, twice underscored": (f"lora_unet__{FLAT}", *KOHYA),
    "kohya, compiled": (f"lora_unet__orig_mod_{FLAT}", *KOHYA),
    "kohya with a root": (f"lora_unet_diffusion_model_{FLAT}", *KOHYA),
    "OneTrainer": (f"lora_transformer_{FLAT}", *KOHYA),
    "OneTrainer, dotted": (f"transformer.{QUERY}", *KOHYA),
    "LyCORIS": (f"lycoris_{FLAT}", *KOHYA),
    "DiffSynth": (f"pipe.dit.{QUERY}", "lora_A.default.weight", "lora_B.default.weight"),
    "early diffusers": (f"transformer.{QUERY}", "lora.down.weight", "lora.up.weight"),
    "early diffusers, layer": (
        f"transformer.{QUERY}", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    "early diffusers, processor": (
        f"transformer.{ATTENTION}.processor", "to_q_lora.down.weight", "to_q_lora.up.weight"),
    "compiled": (f"_orig_mod.{QUERY}", *PEFT),
    "DDP": (f"module.{QUERY}", *PEFT),
    "FSDP": (
        f"module._fsdp_wrapped_module.{QUERY.replace('.attn1', '._fsdp_wrapped_module.attn1')}",
        *PEFT),
    "checkpointed": (
        f"diffusion_model.{QUERY.replace('.attn1', '._checkpoint_wrapped_module.attn1')}",
        *PEFT),
    "wrapped in any order": (
        f"module.base_model._orig_mod.model.transformer.{QUERY}", *PEFT),
}  # fmt: skip


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_every_naming_gives_the_same_merge(
    tmp_path: Path, naming: str, alpha: float | None
) -> None:
    name, a, b = NAMINGS[naming]
    tensors = pair(name, a, b)
    if alpha is not None:
        layer = f"transformer.{QUERY}" if ".processor" in name else name
        tensors[f"{layer}.alpha"] = torch.tensor(alpha)
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    assert list(lora.changes["transformer"]) == [f"{QUERY}.weight"]
    assert lora.notices == ()
    down, up = tensors.values() if alpha is None else list(tensors.values())[:2]
    scale = 1.0 if alpha is None else alpha / RANK
    assert torch.equal(added(lora, f"{QUERY}.weight"), (up * scale) @ down)


MODULES = {
    # What files call modules, and what they are here.
    "transformer.proj_in": ("transformer", "patchify_proj.weight"),
    "lora_unet_proj_in": ("transformer", "patchify_proj.weight"),
    "lora_transformer_proj_in": ("transformer", "patchify_proj.weight"),
    "lycoris_patchify_proj": ("transformer", "patchify_proj.weight"),
    "transformer.time_embed.linear": ("transformer", "adaln_single.linear.weight"),
    "lora_unet_time_embed_linear": ("transformer", "adaln_single.linear.weight"),
    "lora_unet_adaln_single_linear": ("transformer", "adaln_single.linear.weight"),
    f"diffusion_model.{CONNECTOR}.to_q": ("connectors", f"{CONNECTOR}.to_q.weight"),
    f"model.diffusion_model.{CONNECTOR}.to_q": ("connectors", f"{CONNECTOR}.to_q.weight"),
    f"{CONNECTOR}.to_q": ("connectors", f"{CONNECTOR}.to_q.weight"),
    f"connectors.{CONNECTOR}.to_q": ("connectors", f"{CONNECTOR}.to_q.weight"),
    "connectors.video_connector.transformer_blocks.0.attn1.to_q": (
        "connectors", f"{CONNECTOR}.to_q.weight"),
    "base_model.model.video_connector.transformer_1d_blocks.0.attn1.to_q": (
        "connectors", f"{CONNECTOR}.to_q.weight"),
    "embeddings_processor.video_connector.transformer_1d_blocks.0.attn1.to_q": (
        "connectors", f"{CONNECTOR}.to_q.weight"),
    "lora_unet_video_embeddings_connector_transformer_1d_blocks_0_attn1_to_q": (
        "connectors", f"{CONNECTOR}.to_q.weight"),
    "lora_connectors_video_connector_transformer_blocks_0_attn1_to_q": (
        "connectors", f"{CONNECTOR}.to_q.weight"),
    "text_embedding_projection.video_aggregate_embed": (
        "connectors", "text_embedding_projection.video_aggregate_embed.weight"),
    "diffusion_model.text_embedding_projection.video_aggregate_embed": (
        "connectors", "text_embedding_projection.video_aggregate_embed.weight"),
    "connectors.video_text_proj_in": (
        "connectors", "text_embedding_projection.video_aggregate_embed.weight"),
    "feature_extractor.video_aggregate_embed": (
        "connectors", "text_embedding_projection.video_aggregate_embed.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_found_under_the_names_of_others(tmp_path: Path, name: str) -> None:
    component, parameter = MODULES[name]
    out, inputs = SHAPES[component][parameter]
    tensors = {
        f"{name}.lora_down.weight": random(RANK, inputs),
        f"{name}.lora_up.weight": random(out, RANK),
    }
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    changed = {key: [*changes] for key, changes in lora.changes.items()}
    assert changed == {"transformer": [], "connectors": []} | {component: [parameter]}


@pytest.mark.parametrize("form", ["{}", "diffusion_model.{}", "lora_unet_{}", "lycoris_{}"])
@pytest.mark.parametrize("diffusers", [False, True])
def test_every_module_of_the_model_is_found(form: str, diffusers: bool) -> None:
    """No two names of the full model become one when dots are underscores."""
    parameters = published_parameters()
    names = Names(parameters)
    to_diffusers = {"transformer": transformer_to_diffusers, "connectors": connectors_to_diffusers}
    for component, of_component in parameters.items():
        for parameter in of_component:
            module = parameter.removesuffix(".weight").removesuffix(".bias")
            name = to_diffusers[component](module) if diffusers else module
            if "_{" in form:
                name = name.replace(".", "_")
            found = [(each.component, each.name) for each in names.find(form.format(name))]
            assert found == [(component, module)]


def test_diffusers_names_lead_both_ways() -> None:
    parameters = published_parameters()
    for name in parameters["transformer"]:
        assert transformer_to_published(transformer_to_diffusers(name)) == name
    for name in parameters["connectors"]:
        assert connectors_to_published(connectors_to_diffusers(name)) == name


@pytest.mark.parametrize(
    "keys",
    [
        ["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"],
        ["lora_te1_text_model_x.lora_up.weight", "lora_te2_text_model_x.alpha"],
        ["text_encoder.model.layers.0.self_attn.q_proj.lora_A.weight"],
        ["text_encoder_2.layers.0.lora_B.weight"],
        ["base_model.model.text_encoder.layers.0.lora_B.weight"],
        ["lora_text_encoder_layers_0.lora_down.weight"],
        ["lycoris_text_encoder_layers_0.lokr_w1"],
        ["te.layers.0.lora_A.weight"],
    ],
)
def test_text_encoder_keys_are_left_out_aloud(tmp_path: Path, keys: list[str]) -> None:
    tensors = pair(f"diffusion_model.{QUERY}") | {key: random(RANK, 8) for key in keys}
    path = write(tmp_path / "lora.safetensors", tensors)
    lora = opened(path)
    assert list(lora.changes["transformer"]) == [f"{QUERY}.weight"]
    (notice,) = lora.notices
    assert notice.path == path
    assert set(notice.keys) == set(keys)
    assert "text encoder" in notice.message


def test_a_text_encoders_lora(tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", pair("text_encoder.model.layers.0.mlp.up_proj"))
    with pytest.raises(LoraError, match="all of its 2 keys are of a text encoder"):
        opened(path)


def test_two_names_of_one_module(tmp_path: Path) -> None:
    tensors = pair(f"diffusion_model.{QUERY}") | pair(f"lora_unet_{FLAT}")
    with pytest.raises(LoraError, match=f"both change {QUERY}.weight") as error:
        opened(write(tmp_path / "lora.safetensors", tensors))
    assert f"diffusion_model.{QUERY}" in str(error.value)
    assert f"lora_unet_{FLAT}" in str(error.value)


def test_two_keys_of_one_factor(tmp_path: Path) -> None:
    tensors = pair(QUERY) | {f"{QUERY}.lora_down.weight": random(RANK, 16)}
    with pytest.raises(LoraError, match="lora_A.weight and .*lora_down.weight are the same thing"):
        opened(write(tmp_path / "lora.safetensors", tensors))


def test_several_adapters_in_one_file(tmp_path: Path) -> None:
    tensors = pair(QUERY, "lora_A.one.weight", "lora_B.one.weight")
    tensors |= pair(f"{ATTENTION}.to_k", "lora_A.two.weight", "lora_B.two.weight")
    with pytest.raises(LoraError, match=r"several adapters \(one, two\)"):
        opened(write(tmp_path / "lora.safetensors", tensors))


def test_keys_of_another_model(tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", pair("unet.down.0"))
    with pytest.raises(LoraError, match=r"2 of its 2 keys.*unet\.down\.0\.lora_A.*another model"):
        opened(path, partial=True)
