"""diffusers' own models, holding a model source's tensors.

The names are those of `checkpoints.diffusers_names`, which lead from diffusers' to ours: a model is
built, and each of its tensors is looked up under the name that we have for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from torch import nn

from entracte.checkpoints.diffusers_names import connectors_to_published, transformer_to_published
from entracte.checkpoints.loading import build_component
from entracte.checkpoints.sources import ComponentSource, Located, ModelSource
from entracte.errors import CheckpointError
from entracte.models.connectors import REGISTERS
from entracte.models.transformer import TransformerConfig

from .diffusers_video_vae import video_vae, video_vae_names

# Ours are shells around a model of diffusers or transformers, which is their only child.
SHELLS = ("text_encoder", "audio_vae", "vocoder", "upsampler")


@dataclass(frozen=True, slots=True)
class Match:
    """A model on the meta device, and the source's tensors by the names that the model has.

    left_out: names of the source that the model has no use for.
    """

    model: nn.Module
    tensors: Mapping[str, Located]
    left_out: frozenset[str]


def match_component(source: ModelSource, name: str) -> Match:
    """diffusers' model for a component of the source; no weight is read.

    Raises CheckpointError where diffusers cannot express the component, or where a tensor is
    missing, left over, or of another shape.
    """
    component = source.components[name]
    with torch.device("meta"):
        if name in SHELLS:
            shell = build_component(component, source.version)
            # What no file holds is computed, as the shell's model would have done off meta.
            with torch.device("cpu"):
                shell.restore_buffers()
            return _match(component, shell.get_submodule("model"), "model.{}".format)
        if name == "transformer":
            return _match(component, transformer(component.config), transformer_to_published)
        if name == "connectors":
            return _match(component, connectors(source), connectors_to_published)
        vae = video_vae(component.config)
    # diffusers cannot express every encoder, and text-to-video needs none.
    held = vae.state_dict()
    has_encoder = any(name.startswith("encoder.") for name in held)
    left_out = frozenset(
        name for name in component.tensors if name.startswith("encoder.") and not has_encoder
    )
    return _match(component, vae, video_vae_names(component.config), left_out)


def load_component(source: ModelSource, name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """diffusers' model for a component, with weights. Raises what `match_component` raises.

    dtype: of every floating-point tensor, but for components that have one of their own.
    """
    match = match_component(source, name)
    dtype = source.version.dtype_of(name, dtype)
    weights = {
        theirs: located.tensor().to(device, dtype) for theirs, located in match.tensors.items()
    }
    match.model.load_state_dict(weights, assign=True)
    return match.model.to(device).eval().requires_grad_(False)


def transformer(config: Mapping[str, Any]) -> nn.Module:
    """An LTX-2.3 transformer of the sizes in a published config."""
    sizes = TransformerConfig.from_header(config)
    video, audio = sizes.video, sizes.audio
    frames, height, width = video.max_positions
    model: nn.Module = LTX2VideoTransformer3DModel(
        in_channels=video.in_channels,
        out_channels=video.out_channels,
        num_attention_heads=video.heads,
        attention_head_dim=video.head_dim,
        cross_attention_dim=video.context_dim,
        pos_embed_max_pos=frames,
        base_height=height,
        base_width=width,
        gated_attn=True,
        cross_attn_mod=True,
        audio_in_channels=audio.in_channels,
        audio_out_channels=audio.out_channels,
        audio_num_attention_heads=audio.heads,
        audio_attention_head_dim=audio.head_dim,
        audio_cross_attention_dim=audio.context_dim,
        audio_pos_embed_max_pos=audio.max_positions[0],
        audio_gated_attn=True,
        audio_cross_attn_mod=True,
        num_layers=sizes.layers,
        norm_eps=sizes.norm_eps,
        rope_theta=sizes.rope_theta,
        timestep_scale_multiplier=sizes.timestep_scale,
        cross_attn_timestep_scale_multiplier=sizes.gate_timestep_scale,
        rope_type="split",
        use_prompt_embeddings=False,
        perturbed_attn=True,
    )
    return model


def connectors(source: ModelSource) -> nn.Module:
    """Both streams' text connectors, of the sizes in the source."""
    component = source.components["connectors"]
    config = component.config
    hidden_width = source.components["text_encoder"].config["text_config"]["hidden_size"]
    projection = component.tensors["text_embedding_projection.video_aggregate_embed.weight"]
    arguments: dict[str, Any] = {}
    for theirs, ours in (("video_", ""), ("audio_", "audio_")):
        heads = config[f"{ours}connector_num_attention_heads"]
        head_dim = config[f"{ours}connector_attention_head_dim"]
        arguments |= {
            f"{theirs}connector_num_attention_heads": heads,
            f"{theirs}connector_attention_head_dim": head_dim,
            f"{theirs}connector_num_layers": config[f"{ours}connector_num_layers"],
            f"{theirs}connector_num_learnable_registers": REGISTERS,
            f"{theirs}gated_attn": True,
            f"{theirs}hidden_dim": heads * head_dim,
        }
    model: nn.Module = LTX2TextConnectors(
        caption_channels=hidden_width,
        text_proj_in_factor=projection.info.shape[1] // hidden_width,
        connector_rope_base_seq_len=config["connector_positional_embedding_max_pos"][0],
        rope_theta=config["positional_embedding_theta"],
        rope_type="split",
        per_modality_projections=True,
        proj_bias=True,
        **arguments,
    )
    return model


def _match(
    source: ComponentSource,
    model: nn.Module,
    rename: Callable[[str], str],
    left_out: frozenset[str] = frozenset(),
) -> Match:
    names = {theirs: rename(theirs) for theirs in model.state_dict()}
    ours = source.tensors.keys() - left_out
    strange = ours ^ set(names.values())
    if strange or len(set(names.values())) != len(names):
        raise CheckpointError(
            f"{source.name}: {len(strange)} tensors are in the model and not in diffusers' "
            f"{type(model).__name__}, or the other way round; the first is {min(strange)}"
        )
    tensors = {theirs: source.tensors[name] for theirs, name in names.items()}
    for theirs, tensor in model.state_dict().items():
        if tuple(tensor.shape) != tensors[theirs].info.shape:
            raise CheckpointError(
                f"{source.name}: {names[theirs]} has the shape {tensors[theirs].info.shape}; "
                f"diffusers' {type(model).__name__} wants {tuple(tensor.shape)}"
            )
    return Match(model, tensors, left_out)
