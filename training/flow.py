"""The transformer in batches, for training: what `entracte.models.transformer` computes for one
sample, written so that gradients flow, and with a noise level for every row and token.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.models.transformer import Transformer
from entracte.models.transformer.attention import Attention, FeedForward
from entracte.models.transformer.block import Block
from entracte.sampling.tokens import audio_spans

EPS = 1e-6

Angles = tuple[Tensor, Tensor]


class Stream(NamedTuple):
    """One stream of a batch.

    latent: [B, tokens, channels]. levels: [B, 2], the noise levels of tokens that are made and of
    those that are held near something given. held: [tokens] float32, 1 for the latter.
    context: [B, 1024, width]. own, cross: cosines and sines of self-attention and of audio-video
    attention, [tokens, heads, head_dim / 2].
    """

    latent: Tensor
    levels: Tensor
    held: Tensor
    context: Tensor
    own: Angles
    cross: Angles


class Conditions(NamedTuple):
    """What every block is given of a stream: see `StreamConditions` of the engine's transformer.

    timestep: [B, 2, 9, width]; cross: [B, 2, 4, width]; prompt: [B, 2, width]; gate: [B, 1, width].
    """

    timestep: Tensor
    cross: Tensor
    prompt: Tensor
    gate: Tensor
    held: Tensor
    context: Tensor
    own: Angles
    cross_angles: Angles


RunBlock = Callable[..., tuple[Tensor, Tensor]]


def velocities(
    transformer: Transformer,
    video: Stream,
    audio: Stream,
    joined: Tensor | None = None,
    skipped: Tensor | None = None,
    run: RunBlock | None = None,
) -> tuple[Tensor, Tensor]:
    """What the transformer predicts for both streams, [B, tokens, channels].

    joined: [B] bool, whether a row's streams attend to each other. skipped: [blocks, B] bool,
    where self-attention is replaced by its values. The streams' noise level is that of the tokens
    that are made. run: `block_states`, or its compiled form.
    """
    run = run or block_states
    model, batch = transformer, len(video.latent)
    everywhere = torch.ones(batch, dtype=torch.bool, device=video.latent.device)
    joined = everywhere if joined is None else joined
    if skipped is None:
        skipped = (~everywhere).expand(len(model.transformer_blocks), -1)
    scale, gate_scale = model.config.timestep_scale, model.config.gate_timestep_scale

    def conditions(
        own: Stream,
        other: Stream,
        adaln: nn.Module,
        prompt: nn.Module,
        cross: nn.Module,
        gate: nn.Module,
    ) -> tuple[Conditions, Tensor]:
        time, embedded = adaln(own.levels.flatten() * scale)
        shifts, _ = cross(own.levels.flatten() * scale)
        return Conditions(
            time.unflatten(0, (batch, 2)),
            shifts.unflatten(0, (batch, 2)),
            prompt(own.levels[:, 0] * scale)[0],
            gate(other.levels[:, 0] * gate_scale)[0],
            own.held,
            own.context,
            own.own,
            own.cross,
        ), embedded.unflatten(0, (batch, 2))

    of_prompt, of_audio_prompt = model.prompt_adaln_single, model.audio_prompt_adaln_single
    assert of_prompt is not None
    assert of_audio_prompt is not None
    v, v_embedded = conditions(
        video,
        audio,
        model.adaln_single,
        of_prompt,
        model.av_ca_video_scale_shift_adaln_single,
        model.av_ca_a2v_gate_adaln_single,
    )
    a, a_embedded = conditions(
        audio,
        video,
        model.audio_adaln_single,
        of_audio_prompt,
        model.av_ca_audio_scale_shift_adaln_single,
        model.av_ca_v2a_gate_adaln_single,
    )
    x, y = model.patchify_proj(video.latent), model.audio_patchify_proj(audio.latent)
    for index, each in enumerate(model.transformer_blocks):
        assert isinstance(each, Block)
        x, y = run(each, x, y, v, a, joined[:, None, None], skipped[index][:, None, None])
    return (
        _output(x, model.scale_shift_table, v_embedded, video.held, model.proj_out),
        _output(y, model.audio_scale_shift_table, a_embedded, audio.held, model.audio_proj_out),
    )


def block_states(
    block: Block,
    x: Tensor,
    y: Tensor,
    v: Conditions,
    a: Conditions,
    joined: Tensor,
    skipped: Tensor,
) -> tuple[Tensor, Tensor]:
    """The hidden states after a block, [B, tokens, width] of both streams."""
    prompt, audio_prompt = block.prompt_scale_shift_table, block.audio_prompt_scale_shift_table
    assert prompt is not None
    assert audio_prompt is not None
    x, x_rows = _inner(
        block.attn1,
        block.attn2,
        block.scale_shift_table,
        prompt,
        x,
        v,
        skipped,
    )
    y, y_rows = _inner(
        block.audio_attn1,
        block.audio_attn2,
        block.audio_scale_shift_table,
        audio_prompt,
        y,
        a,
        skipped,
    )
    x_table, y_table = block.scale_shift_table_a2v_ca_video, block.scale_shift_table_a2v_ca_audio
    v_cross, a_cross = (
        per_token(x_table[:4] + v.cross, v.held),
        per_token(y_table[:4] + a.cross, a.held),
    )
    h, g = normed(x), normed(y)
    to_video = attention(
        block.audio_to_video_attn,
        _modulated(h, v_cross[0], v_cross[1]),
        _modulated(g, a_cross[0], a_cross[1]),
        v.cross_angles,
        a.cross_angles,
    )
    to_audio = attention(
        block.video_to_audio_attn,
        _modulated(g, a_cross[2], a_cross[3]),
        _modulated(h, v_cross[2], v_cross[3]),
        a.cross_angles,
        v.cross_angles,
    )
    x = x + torch.where(joined, to_video * (x_table[4] + v.gate), 0)
    y = y + torch.where(joined, to_audio * (y_table[4] + a.gate), 0)
    x = x + feed_forward(block.ff, _modulated(normed(x), x_rows[4], x_rows[3])) * x_rows[5]
    y = y + feed_forward(block.audio_ff, _modulated(normed(y), y_rows[4], y_rows[3])) * y_rows[5]
    return x, y


def _inner(
    own: Attention,
    text: Attention,
    table: Tensor,
    prompt_table: Tensor,
    x: Tensor,
    c: Conditions,
    skipped: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Self-attention and text attention; and the modulation of every token, nine rows."""
    rows = per_token(table + c.timestep, c.held)
    h = _modulated(normed(x), rows[1], rows[0])
    x = x + attention(own, h, h, c.own, c.own, skipped) * rows[2]
    shift, scale = (prompt_table + c.prompt)[:, :, None].unbind(1)
    h = _modulated(normed(x), rows[7], rows[6])
    return x + attention(text, h, _modulated(c.context, scale, shift)) * rows[8], rows


def per_token(rows: Tensor, held: Tensor) -> list[Tensor]:
    """[B, 2, n, width] as n of [B, tokens, width]: each token's of its noise level."""
    held = held[:, None]
    return [each[:, :1] * (1 - held) + each[:, 1:] * held for each in rows.unbind(2)]


def attention(
    module: Attention,
    x: Tensor,
    context: Tensor,
    x_angles: Angles | None = None,
    context_angles: Angles | None = None,
    skipped: Tensor | None = None,
) -> Tensor:
    """Gated attention of x to a context; where `skipped`, x's own values."""
    q = F.rms_norm(
        module.to_q(x).float(), (module.q_norm.weight.numel(),), module.q_norm.weight, EPS
    )
    k = F.rms_norm(
        module.to_k(context).float(), (module.k_norm.weight.numel(),), module.k_norm.weight, EPS
    )
    v = module.split(module.to_v(context))
    q, k = module.split(q), module.split(k)
    if x_angles is not None and context_angles is not None:
        q, k = _rotated(q, x_angles), _rotated(k, context_angles)
    q, k = q.to(v.dtype), k.to(v.dtype)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    out = out.transpose(1, 2)
    if skipped is not None:
        out = torch.where(skipped[..., None], v, out)
    assert module.to_gate_logits is not None
    gates = 2 * torch.sigmoid(module.to_gate_logits(x))
    made: Tensor = module.to_out[0]((out * gates[..., None]).flatten(2))
    return made


def feed_forward(module: FeedForward, x: Tensor) -> Tensor:
    hidden = F.gelu(module.net[0].proj(x), approximate="tanh")  # type: ignore[operator]
    made: Tensor = module.net[2](hidden)
    return made


def normed(x: Tensor) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], eps=EPS)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _rotated(x: Tensor, angles: Angles) -> Tensor:
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _output(x: Tensor, table: Tensor, embedded: Tensor, held: Tensor, project: nn.Module) -> Tensor:
    shift, scale = per_token(table + embedded[:, :, None], held)
    out: Tensor = project(_modulated(F.layer_norm(x.float(), x.shape[-1:], eps=EPS), scale, shift))
    return out.float()


def angles(
    transformer: Transformer, spans: Tensor, audio_tokens: int, device: torch.device
) -> tuple[tuple[Angles, Angles], tuple[Angles, Angles]]:
    """Own and cross angles of video tokens at `spans` [3, tokens, 2], and of audio tokens."""
    video, audio = transformer.rotary(
        spans.mean(-1), audio_spans(audio_tokens).mean(-1), device, torch.float32
    )
    return (
        ((video.own.cos, video.own.sin), (video.cross.cos, video.cross.sin)),
        ((audio.own.cos, audio.own.sin), (audio.cross.cos, audio.cross.sin)),
    )


def initialise(transformer: Transformer) -> None:
    """Weights to begin a training with: every block adds nothing, and what is made is nearly the
    noisy latent itself, which at a high noise level is most of the velocity.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in transformer.named_parameters():
        if (
            "scale_shift_table" in name
            or "to_gate_logits" in name
            or name.endswith("adaln_single.linear.weight")
        ):
            nn.init.zeros_(parameter)
    for into, out in (
        (transformer.patchify_proj, transformer.proj_out),
        (transformer.audio_patchify_proj, transformer.audio_proj_out),
    ):
        nn.init.orthogonal_(into.weight)
        # The norm before it makes numbers larger that are spread over more channels.
        out.weight.data.copy_(0.9 * (into.in_features / into.out_features) ** 0.5 * into.weight.T)
