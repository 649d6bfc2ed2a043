"""Parameter names of diffusers' LTX-2 models, and the names that our modules have for them.

Names differ in single segments (between dots), so the tables below work in both directions.
"""

from collections.abc import Mapping
from types import MappingProxyType

# diffusers' segment, ours.
TRANSFORMER: Mapping[str, str] = MappingProxyType(
    {
        "proj_in": "patchify_proj",
        "audio_proj_in": "audio_patchify_proj",
        "time_embed": "adaln_single",
        "audio_time_embed": "audio_adaln_single",
        "prompt_adaln": "prompt_adaln_single",
        "audio_prompt_adaln": "audio_prompt_adaln_single",
        "av_cross_attn_video_scale_shift": "av_ca_video_scale_shift_adaln_single",
        "av_cross_attn_audio_scale_shift": "av_ca_audio_scale_shift_adaln_single",
        "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
        "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single",
        "video_a2v_cross_attn_scale_shift_table": "scale_shift_table_a2v_ca_video",
        "audio_a2v_cross_attn_scale_shift_table": "scale_shift_table_a2v_ca_audio",
        "norm_q": "q_norm",
        "norm_k": "k_norm",
    }
)

CONNECTORS: Mapping[str, str] = MappingProxyType(
    {
        "video_connector": "video_embeddings_connector",
        "audio_connector": "audio_embeddings_connector",
        "text_proj_in": "text_embedding_projection.aggregate_embed",
        "video_text_proj_in": "text_embedding_projection.video_aggregate_embed",
        "audio_text_proj_in": "text_embedding_projection.audio_aggregate_embed",
        "transformer_blocks": "transformer_1d_blocks",
        "norm_q": "q_norm",
        "norm_k": "k_norm",
    }
)


def transformer_to_published(name: str) -> str:
    """A name of diffusers' transformer as the published file's."""
    return _translate(TRANSFORMER, name)


def transformer_to_diffusers(name: str) -> str:
    """The inverse of `transformer_to_published`."""
    return _translate({ours: theirs for theirs, ours in TRANSFORMER.items()}, name)


def connectors_to_published(name: str) -> str:
    """A name of diffusers' connectors as the published file's."""
    return _translate(CONNECTORS, name)


def connectors_to_diffusers(name: str) -> str:
    """The inverse of `connectors_to_published`."""
    for theirs, ours in CONNECTORS.items():
        if "." in ours and name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return _translate({ours: theirs for theirs, ours in CONNECTORS.items()}, name)


def _translate(table: Mapping[str, str], name: str) -> str:
    return ".".join(table.get(segment, segment) for segment in name.split("."))
