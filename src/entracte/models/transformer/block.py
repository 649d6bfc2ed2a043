"""One of the transformer's blocks: two streams, video and audio, that attend to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import Attention, FeedForward
from .config import TransformerConfig
from .modulation import TokenRun, add_gated, modulate
from .norm import rms_norm
from .passes import Rows
from .rotary import Rotary


@dataclass(frozen=True, slots=True)
class StreamConditions:
    """What conditions one stream in a step; the same for all blocks and passes.

    runs: the stretches of tokens with one timestep.
    rotary, cross_rotary: angles for self-attention and for audio-video attention.
    contexts: [contexts, text tokens, context_dim].
    timestep [timesteps, 9, width], prompt [2, width], cross [timesteps, 4, width] and cross_gate
    [1, width]: modulation that a block adds to its own tables.
    """

    runs: Sequence[TokenRun]
    rotary: Rotary
    cross_rotary: Rotary
    contexts: Tensor
    timestep: Tensor
    prompt: Tensor
    cross: Tensor
    cross_gate: Tensor

    @property
    def everywhere(self) -> list[TokenRun]:
        """All tokens as one run, for modulation that does not depend on the token."""
        return [TokenRun(0, self.runs[-1].stop, 0)]


@dataclass(frozen=True, slots=True)
class StreamShared:
    """What a block makes of one stream's conditions, for all batches of a sweep.

    table: [timesteps, 9, width], modulation. text_keys, text_values: of the contexts,
    [contexts, text tokens, heads, head_dim].
    """

    table: Tensor
    text_keys: Tensor
    text_values: Tensor


@dataclass(frozen=True, slots=True)
class Shared:
    """What a block makes of the conditions of both streams, for all batches of a sweep."""

    video: StreamShared
    audio: StreamShared


class Block(nn.Module):
    """Self-attention, text attention, audio-video attention and feed-forward of both streams.

    It keeps nothing between calls. Parameter names are those of the published file.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        video, audio, eps = config.video, config.audio, config.norm_eps
        self.eps = eps
        self.attn1 = Attention(video.width, video.width, video.heads, video.head_dim, eps)
        self.attn2 = Attention(video.width, video.context_dim, video.heads, video.head_dim, eps)
        self.audio_attn1 = Attention(audio.width, audio.width, audio.heads, audio.head_dim, eps)
        self.audio_attn2 = Attention(
            audio.width, audio.context_dim, audio.heads, audio.head_dim, eps
        )
        self.audio_to_video_attn = Attention(
            video.width, audio.width, audio.heads, audio.head_dim, eps
        )
        self.video_to_audio_attn = Attention(
            audio.width, video.width, audio.heads, audio.head_dim, eps
        )
        self.ff = FeedForward(video.width)
        self.audio_ff = FeedForward(audio.width)
        self.scale_shift_table = nn.Parameter(torch.empty(9, video.width))
        self.audio_scale_shift_table = nn.Parameter(torch.empty(9, audio.width))
        self.prompt_scale_shift_table = nn.Parameter(torch.empty(2, video.width))
        self.audio_prompt_scale_shift_table = nn.Parameter(torch.empty(2, audio.width))
        self.scale_shift_table_a2v_ca_video = nn.Parameter(torch.empty(5, video.width))
        self.scale_shift_table_a2v_ca_audio = nn.Parameter(torch.empty(5, audio.width))

    def prepare(self, video: StreamConditions, audio: StreamConditions) -> Shared:
        """What does not depend on the hidden states: modulation, keys and values of the text."""
        return Shared(
            self._shared(self.attn2, video, self.scale_shift_table, self.prompt_scale_shift_table),
            self._shared(
                self.audio_attn2,
                audio,
                self.audio_scale_shift_table,
                self.audio_prompt_scale_shift_table,
            ),
        )

    @staticmethod
    def _shared(
        attention: Attention, conditions: StreamConditions, table: Tensor, prompt: Tensor
    ) -> StreamShared:
        table = table + conditions.timestep
        shift, scale = prompt + conditions.prompt
        text = (conditions.contexts * (1 + scale)).add_(shift)
        return StreamShared(table, attention.keys(text), attention.values(text))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        video: StreamConditions,
        audio: StreamConditions,
        shared: Shared,
        rows: Rows,
    ) -> tuple[Tensor, Tensor]:
        """The hidden states after this block, in the memory of those before it.

        x: [rows, video tokens, video width]; y: [rows, audio tokens, audio width].
        shared: what `prepare` made of the same conditions.
        """
        self._self_attention(self.attn1, x, video, shared.video, rows.video_attending)
        self._self_attention(self.audio_attn1, y, audio, shared.audio, rows.audio_attending)
        self._text_attention(self.attn2, x, video, shared.video, rows)
        self._text_attention(self.audio_attn2, y, audio, shared.audio, rows)
        if rows.isolated < len(x):
            self._audio_video_attention(x[rows.isolated :], y[rows.isolated :], video, audio)
        self._feed_forward(self.ff, x, video, shared.video)
        self._feed_forward(self.audio_ff, y, audio, shared.audio)
        return x, y

    def _self_attention(
        self,
        attention: Attention,
        x: Tensor,
        conditions: StreamConditions,
        shared: StreamShared,
        attending: int,
    ) -> None:
        """Rows from `attending` on keep their own values."""
        shift, scale, gate = shared.table[:, 0:3].unbind(1)
        h = modulate(self._norm(x), shift, scale, conditions.runs)
        out = values = attention.values(h)
        if attending:
            asking = h[:attending]
            out = attention.attend(
                attention.queries(asking, conditions.rotary),
                attention.keys(asking, conditions.rotary),
                values[:attending],
            )
            if attending < len(x):
                out = torch.cat([out, values[attending:]])
        add_gated(x, attention.project(out, h), gate, conditions.runs)

    def _text_attention(
        self,
        attention: Attention,
        x: Tensor,
        conditions: StreamConditions,
        shared: StreamShared,
        rows: Rows,
    ) -> None:
        shift, scale, gate = shared.table[:, 6:9].unbind(1)
        h = modulate(self._norm(x), shift, scale, conditions.runs)
        out = attention.attend(
            attention.queries(h),
            _of_rows(shared.text_keys, rows.contexts),
            _of_rows(shared.text_values, rows.contexts),
        )
        add_gated(x, attention.project(out, h), gate, conditions.runs)

    def _audio_video_attention(
        self, x: Tensor, y: Tensor, video: StreamConditions, audio: StreamConditions
    ) -> None:
        """Video x and audio y attend to each other, both reading the states from before."""
        video_table = self.scale_shift_table_a2v_ca_video
        audio_table = self.scale_shift_table_a2v_ca_audio
        video_scale, video_shift, video_scale_key, video_shift_key = (
            video_table[:4] + video.cross
        ).unbind(1)
        audio_scale_key, audio_shift_key, audio_scale, audio_shift = (
            audio_table[:4] + audio.cross
        ).unbind(1)
        h, g = self._norm(x), self._norm(y)
        video_asks = modulate(h, video_shift, video_scale, video.runs, in_place=False)
        audio_asks = modulate(g, audio_shift, audio_scale, audio.runs, in_place=False)
        video_tells = modulate(h, video_shift_key, video_scale_key, video.runs)
        audio_tells = modulate(g, audio_shift_key, audio_scale_key, audio.runs)

        attention = self.audio_to_video_attn
        out = attention.attend(
            attention.queries(video_asks, video.cross_rotary),
            attention.keys(audio_tells, audio.cross_rotary),
            attention.values(audio_tells),
        )
        gate = video_table[4:] + video.cross_gate
        add_gated(x, attention.project(out, video_asks), gate, video.everywhere)

        attention = self.video_to_audio_attn
        out = attention.attend(
            attention.queries(audio_asks, audio.cross_rotary),
            attention.keys(video_tells, video.cross_rotary),
            attention.values(video_tells),
        )
        gate = audio_table[4:] + audio.cross_gate
        add_gated(y, attention.project(out, audio_asks), gate, audio.everywhere)

    def _feed_forward(
        self,
        feed_forward: FeedForward,
        x: Tensor,
        conditions: StreamConditions,
        shared: StreamShared,
    ) -> None:
        shift, scale, gate = shared.table[:, 3:6].unbind(1)
        h = modulate(self._norm(x), shift, scale, conditions.runs)
        add_gated(x, feed_forward(h), gate, conditions.runs)

    def _norm(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps)


def _of_rows(per_context: Tensor, contexts: Sequence[int]) -> Tensor:
    """For every row, its context's entry of a tensor [contexts, …]; a view where it can be."""
    if len(set(contexts)) == 1:
        return per_context[contexts[0]].expand(len(contexts), *per_context.shape[1:])
    # Not an index by a list, which a GPU would have to be sent, and waited for.
    return torch.stack([per_context[context] for context in contexts])
