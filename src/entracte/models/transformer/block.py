"""One of the transformer's blocks: two streams, video and audio, that attend to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entracte.models.float8 import Activations

from .attention import Attention, FeedForward, attend, takes_float8
from .config import StreamConfig, TransformerConfig
from .elementwise import PLAIN, Elementwise, GatedUpdate
from .exchange import ONE_DEVICE, Awaited, Exchange
from .lanes import IN_TURN, Lanes, meet
from .modulation import Modulation, TokenTimesteps
from .passes import Rows
from .rotary import Rotary


@dataclass(frozen=True, slots=True)
class StreamConditions:
    """What conditions one stream in a step; the same for all blocks and passes.

    timesteps: of its tokens. rotary, cross_rotary: angles for self-attention and for audio-video
        attention.
    contexts: [contexts, text tokens, context_dim].
    timestep [timesteps, 9, width], prompt [2, width], cross [timesteps, 4, width] and cross_gate
    [1, width]: modulation that a block adds to its own tables. Without modulation of text,
    `timestep` has six rows, and `prompt` is None.
    bias: of self-attention, [all tokens, all tokens]; None where all attend to all alike.
    """

    timesteps: TokenTimesteps
    rotary: Rotary
    cross_rotary: Rotary
    contexts: Tensor
    timestep: Tensor
    prompt: Tensor | None
    cross: Tensor
    cross_gate: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StreamShared:
    """What a block makes of one stream's conditions, for all batches of a sweep.

    attention, text, feed_forward: the modulation of each sublayer's input, and the gates of what it
        adds, [timesteps, width].
    audio_to_video, video_to_audio: the modulation of this stream's part in each direction of
        audio-video attention. cross_gate: [1, width].
    text_keys, text_values: of the contexts, [contexts, text tokens, heads, head_dim] once they are
        here.
    """

    attention: Modulation
    attention_gate: Tensor
    text: Modulation
    text_gate: Tensor
    feed_forward: Modulation
    feed_forward_gate: Tensor
    audio_to_video: Modulation
    video_to_audio: Modulation
    cross_gate: Tensor
    text_keys: Awaited
    text_values: Awaited


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
        video, audio = config.video, config.audio
        self.eps = config.norm_eps

        def attention(asking: int, told: int, stream: StreamConfig) -> Attention:
            return Attention(asking, told, stream.heads, stream.head_dim, self.eps, config.gated)

        self.attn1 = attention(video.width, video.width, video)
        self.attn2 = attention(video.width, video.context_dim, video)
        self.audio_attn1 = attention(audio.width, audio.width, audio)
        self.audio_attn2 = attention(audio.width, audio.context_dim, audio)
        self.audio_to_video_attn = attention(video.width, audio.width, audio)
        self.video_to_audio_attn = attention(audio.width, video.width, audio)
        self.ff = FeedForward(video.width, config.ff_bias)
        self.audio_ff = FeedForward(audio.width, config.audio_ff_bias)
        rows = config.modulation_rows
        self.scale_shift_table = nn.Parameter(torch.empty(rows, video.width))
        self.audio_scale_shift_table = nn.Parameter(torch.empty(rows, audio.width))
        self.prompt_scale_shift_table: nn.Parameter | None = None
        self.audio_prompt_scale_shift_table: nn.Parameter | None = None
        if config.modulates_text:
            self.prompt_scale_shift_table = nn.Parameter(torch.empty(2, video.width))
            self.audio_prompt_scale_shift_table = nn.Parameter(torch.empty(2, audio.width))
        self.scale_shift_table_a2v_ca_video = nn.Parameter(torch.empty(5, video.width))
        self.scale_shift_table_a2v_ca_audio = nn.Parameter(torch.empty(5, audio.width))

    def prepare(
        self,
        video: StreamConditions,
        audio: StreamConditions,
        ops: Elementwise = PLAIN,
        exchange: Exchange = ONE_DEVICE,
        lanes: Lanes = IN_TURN,
    ) -> Shared:
        """What does not depend on the hidden states: modulation, keys and values of the text."""
        with lanes.audio():
            for_audio = _shared(
                self.audio_attn2,
                audio,
                self.audio_scale_shift_table,
                self.audio_prompt_scale_shift_table,
                self.scale_shift_table_a2v_ca_audio,
                ops,
                exchange,
                "audio",
            )
        for_video = _shared(
            self.attn2,
            video,
            self.scale_shift_table,
            self.prompt_scale_shift_table,
            self.scale_shift_table_a2v_ca_video,
            ops,
            exchange,
            "video",
        )
        return Shared(for_video, for_audio)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        video: StreamConditions,
        audio: StreamConditions,
        shared: Shared,
        rows: Rows,
        ops: Elementwise = PLAIN,
        exchange: Exchange = ONE_DEVICE,
        lanes: Lanes = IN_TURN,
    ) -> tuple[Tensor, Tensor]:
        """The hidden states after this block, in the memory of those before it.

        x: [rows, video tokens, video width]; y: [rows, audio tokens, audio width].
        shared: what `prepare` made of the same conditions.

        A sublayer's update is added when the input of the next one is computed: with fused kernels,
        in the same pass over memory. lanes: are joined by the caller.
        """
        v, a = shared.video, shared.audio
        with lanes.audio():
            adding_a = self._self_attention(
                self.audio_attn1, y, audio, a, rows.audio_attending, ops, ONE_DEVICE
            )
            adding_a = self._text_attention(self.audio_attn2, y, adding_a, a, rows, ops)
        adding_v = self._self_attention(
            self.attn1, x, video, v, rows.video_attending, ops, exchange
        )
        adding_v = self._text_attention(self.attn2, x, adding_v, v, rows, ops)
        if rows.isolated < len(x):
            adding_v, adding_a = self._audio_video_attention(
                x, y, adding_v, adding_a, video, audio, shared, rows.isolated, ops, exchange, lanes
            )
        with lanes.audio():
            ops.add(y, self._feed_forward(self.audio_ff, y, adding_a, a, ops))
        ops.add(x, self._feed_forward(self.ff, x, adding_v, v, ops))
        return x, y

    def _self_attention(
        self,
        attention: Attention,
        x: Tensor,
        conditions: StreamConditions,
        shared: StreamShared,
        attending: int,
        ops: Elementwise,
        exchange: Exchange,
    ) -> GatedUpdate | None:
        """Rows from `attending` on keep their own values."""
        float8 = [takes_float8(*attention.asking, *attention.telling)]
        (h,) = ops.modulated_norm(x, self.eps, [shared.attention], float8=float8)
        values = attention.values(h)
        if attending:
            asked = _among(attention, h[:attending], values[:attending], conditions, ops, exchange)
            gates = attention.gates(h, ops)
            out, kept = asked(), values[attending:] if attending < len(x) else None
        else:
            gates = attention.gates(h, ops)
            out, kept = values.unsqueeze(2), None
        update = attention.project(out, gates, kept, ops)
        return ops.defer(x, GatedUpdate(update, shared.attention_gate, shared.attention.timesteps))

    def _text_attention(
        self,
        attention: Attention,
        x: Tensor,
        adding: GatedUpdate | None,
        shared: StreamShared,
        rows: Rows,
        ops: Elementwise,
    ) -> GatedUpdate | None:
        float8 = [takes_float8(*attention.asking)]
        (h,) = ops.modulated_norm(x, self.eps, [shared.text], adding, float8=float8)
        out = attend(
            attention.queries(h, ops=ops),
            _of_rows(shared.text_keys(), rows.contexts),
            _of_rows(shared.text_values(), rows.contexts),
        )
        update = attention.project(out.unsqueeze(2), attention.gates(h, ops), ops=ops)
        return ops.defer(x, GatedUpdate(update, shared.text_gate, shared.text.timesteps))

    def _audio_video_attention(
        self,
        x: Tensor,
        y: Tensor,
        adding_v: GatedUpdate | None,
        adding_a: GatedUpdate | None,
        video: StreamConditions,
        audio: StreamConditions,
        shared: Shared,
        isolated: int,
        ops: Elementwise,
        exchange: Exchange,
        lanes: Lanes,
    ) -> tuple[GatedUpdate | None, GatedUpdate | None]:
        """Video x and audio y attend to each other, both reading the states from before."""
        v, a = shared.video, shared.audio
        to_audio, to_video = self.video_to_audio_attn, self.audio_to_video_attn
        with lanes.audio():
            float8 = [takes_float8(*to_audio.asking), takes_float8(*to_video.telling)]
            audio_asks, audio_tells = ops.modulated_norm(
                y, self.eps, [a.video_to_audio, a.audio_to_video], adding_a, isolated, float8
            )
        float8 = [takes_float8(*to_video.asking), takes_float8(*to_audio.telling)]
        video_asks, video_tells = ops.modulated_norm(
            x, self.eps, [v.audio_to_video, v.video_to_audio], adding_v, isolated, float8
        )
        meet(lanes)  # each lane reads what the other has made

        with lanes.audio():
            attention = self.video_to_audio_attn
            asked = _of_video(attention, audio_asks, video_tells, video, audio, ops, exchange)
            gates = attention.gates(audio_asks, ops)
            update = attention.project(asked(), gates, ops=ops)
            alike = a.attention.timesteps.alike
            adding_a = ops.defer(y, GatedUpdate(update, a.cross_gate, alike, isolated))

        attention = self.audio_to_video_attn
        out = attend(
            attention.queries(video_asks, video.cross_rotary, ops),
            attention.keys(audio_tells, audio.cross_rotary, ops),
            attention.values(audio_tells),
        )
        update = attention.project(out.unsqueeze(2), attention.gates(video_asks, ops), ops=ops)
        alike = v.attention.timesteps.alike
        adding_v = ops.defer(x, GatedUpdate(update, v.cross_gate, alike, isolated))
        meet(lanes)  # before the memory that the other lane reads is used again
        return adding_v, adding_a

    def _feed_forward(
        self,
        feed_forward: FeedForward,
        x: Tensor,
        adding: GatedUpdate | None,
        shared: StreamShared,
        ops: Elementwise,
    ) -> GatedUpdate:
        float8 = [takes_float8(feed_forward.first)]
        (h,) = ops.modulated_norm(x, self.eps, [shared.feed_forward], adding, float8=float8)
        update = feed_forward(h, ops)
        return GatedUpdate(update, shared.feed_forward_gate, shared.feed_forward.timesteps)


def _among(
    attention: Attention,
    x: Activations,
    values: Tensor,
    conditions: StreamConditions,
    ops: Elementwise,
    exchange: Exchange,
) -> Awaited:
    """Video tokens attend to each other. What is told is on its way beside the next product."""
    rows, tokens, heads, _ = values.shape
    rotary = conditions.rotary
    v = exchange.tell("video v", values, None)
    room = exchange.room("video q", rows, tokens, heads, values)
    q = exchange.tell("video q", attention.queries(x, rotary, ops, room), room)
    room = exchange.room("video k", rows, tokens, heads, values)
    k = exchange.tell("video k", attention.keys(x, rotary, ops, room), room)
    return exchange.collect(attend(q(), k(), v(), conditions.bias))


def _of_video(
    attention: Attention,
    asking: Activations,
    telling: Activations,
    video: StreamConditions,
    audio: StreamConditions,
    ops: Elementwise,
    exchange: Exchange,
) -> Awaited:
    """Audio tokens attend to the video's."""
    values = attention.values(telling)
    rows, tokens, heads, _ = values.shape
    v = exchange.tell("audio v", values, None)
    room = exchange.room("audio k", rows, tokens, heads, values)
    k = exchange.tell("audio k", attention.keys(telling, video.cross_rotary, ops, room), room)
    q = exchange.own(attention.queries(asking, audio.cross_rotary, ops))
    return exchange.gather(attend(q, k(), v()))


def _shared(
    attention: Attention,
    conditions: StreamConditions,
    table: Tensor,
    prompt: Tensor | None,
    cross: Tensor,
    ops: Elementwise,
    exchange: Exchange,
    stream: str,
) -> StreamShared:
    timesteps = conditions.timesteps
    rows = (table + conditions.timestep).unbind(1)
    a2v_scale, a2v_shift, v2a_scale, v2a_shift = (cross[:4] + conditions.cross).unbind(1)
    tokens = conditions.contexts.shape[1]
    text = exchange.part(f"{stream} text", conditions.contexts)
    if prompt is None or conditions.prompt is None:
        # Text attention is not modulated: a scale and a shift of 0 and a gate of 1 change nothing.
        alike, none = timesteps.alike, torch.zeros_like(rows[0][:1])
        asking, text_gate = Modulation(none, none, alike), torch.ones_like(none)
    else:
        asking, text_gate = Modulation(rows[6], rows[7], timesteps), rows[8]
        shift, scale = prompt + conditions.prompt
        text = ops.modulated(text, scale, shift)
    return StreamShared(
        attention=Modulation(rows[0], rows[1], timesteps),
        attention_gate=rows[2],
        text=asking,
        text_gate=text_gate,
        feed_forward=Modulation(rows[3], rows[4], timesteps),
        feed_forward_gate=rows[5],
        audio_to_video=Modulation(a2v_shift, a2v_scale, timesteps),
        video_to_audio=Modulation(v2a_shift, v2a_scale, timesteps),
        cross_gate=cross[4:] + conditions.cross_gate,
        text_keys=exchange.join(f"{stream} text k", attention.keys(text, ops=ops), tokens),
        text_values=exchange.join(f"{stream} text v", attention.values(text), tokens),
    )


def _of_rows(per_context: Tensor, contexts: Sequence[int]) -> Tensor:
    """For every row, its context's entry of a tensor [contexts, …]; a view where it can be."""
    if len(set(contexts)) == 1:
        return per_context[contexts[0]].expand(len(contexts), *per_context.shape[1:])
    # Indexing with a list would copy the list to the GPU, and wait for it.
    return torch.stack([per_context[context] for context in contexts])
