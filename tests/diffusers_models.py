"""diffusers' models in the sizes that the tests use."""

from diffusers import LTX2VideoTransformer3DModel


def diffusers_transformer(
    heads: int, head_dim: int, audio_head_dim: int, layers: int
) -> LTX2VideoTransformer3DModel:
    """An LTX-2.3 transformer, with as many heads for audio as for video."""
    return LTX2VideoTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        cross_attention_dim=heads * head_dim,
        audio_num_attention_heads=heads,
        audio_attention_head_dim=audio_head_dim,
        audio_cross_attention_dim=heads * audio_head_dim,
        num_layers=layers,
        gated_attn=True,
        audio_gated_attn=True,
        cross_attn_mod=True,
        audio_cross_attn_mod=True,
        use_prompt_embeddings=False,
        perturbed_attn=True,
        rope_type="split",
    )
