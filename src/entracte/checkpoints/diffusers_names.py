"""Parameter names of diffusers' LTX-2 models, as the names that our modules have."""

import re

# diffusers' name, ours; applied in this order to the whole name.
TRANSFORMER = (
    (r"^proj_in\b", "patchify_proj"),
    (r"^audio_proj_in\b", "audio_patchify_proj"),
    (r"^time_embed\b", "adaln_single"),
    (r"^audio_time_embed\b", "audio_adaln_single"),
    (r"^prompt_adaln\b", "prompt_adaln_single"),
    (r"^audio_prompt_adaln\b", "audio_prompt_adaln_single"),
    (r"^av_cross_attn_video_scale_shift\b", "av_ca_video_scale_shift_adaln_single"),
    (r"^av_cross_attn_audio_scale_shift\b", "av_ca_audio_scale_shift_adaln_single"),
    (r"^av_cross_attn_video_a2v_gate\b", "av_ca_a2v_gate_adaln_single"),
    (r"^av_cross_attn_audio_v2a_gate\b", "av_ca_v2a_gate_adaln_single"),
    (r"\bvideo_a2v_cross_attn_scale_shift_table$", "scale_shift_table_a2v_ca_video"),
    (r"\baudio_a2v_cross_attn_scale_shift_table$", "scale_shift_table_a2v_ca_audio"),
    (r"\.norm_q\b", ".q_norm"),
    (r"\.norm_k\b", ".k_norm"),
)

CONNECTORS = (
    (r"^video_connector\.", "video_embeddings_connector."),
    (r"^audio_connector\.", "audio_embeddings_connector."),
    (r"^video_text_proj_in\b", "text_embedding_projection.video_aggregate_embed"),
    (r"^audio_text_proj_in\b", "text_embedding_projection.audio_aggregate_embed"),
    (r"\.transformer_blocks\.", ".transformer_1d_blocks."),
    (r"\.norm_q\b", ".q_norm"),
    (r"\.norm_k\b", ".k_norm"),
)


def transformer_to_published(name: str) -> str:
    """A name of diffusers' transformer as the published file's."""
    return _apply(TRANSFORMER, name)


def connectors_to_published(name: str) -> str:
    """A name of diffusers' connectors as the published file's."""
    return _apply(CONNECTORS, name)


def _apply(table: tuple[tuple[str, str], ...], name: str) -> str:
    for theirs, ours in table:
        name = re.sub(theirs, ours, name)
    return name
