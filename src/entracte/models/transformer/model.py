"""The transformer of LTX-2: video and audio latents and text contexts in, velocities out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..component import Component
from .block import Block, StreamConditions
from .config import TransformerConfig
from .exchange import ONE_DEVICE, Exchange
from .execution import RunBlocks, Sweep, run_blocks
from .modulation import AdaLayerNormSingle, Modulation, TokenRun, TokenTimesteps, modulate
from .passes import Pass, first_batches
from .rotary import Rotary, rotary_table


@dataclass(frozen=True, slots=True)
class StreamRotary:
    """Angles of one stream's tokens, for self-attention and for audio-video attention."""

    own: Rotary
    cross: Rotary


@dataclass(frozen=True, slots=True)
class StreamInput:
    """One stream of a forward.

    latent: [1, tokens, in_channels].
    timesteps: [distinct timesteps] float32, in 0..1; `runs` says which tokens have which.
    sigma: [1] float32, the noise level of the whole stream.
    contexts: [contexts, text tokens, width], of the widths in `TransformerConfig.context_widths`;
        every pass names one of them. All are computed, so give none that no pass names.
    pictures: stretches of tokens [start, stop) that stand for a single picture, rather than for
        eight frames; of video.
    bias: is added to self-attention's products, [tokens, tokens]; None: nothing is.
    """

    latent: Tensor
    timesteps: Tensor
    runs: Sequence[TokenRun]
    sigma: Tensor
    contexts: Tensor
    rotary: StreamRotary
    pictures: tuple[tuple[int, int], ...] = ()
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Velocity:
    """What one pass predicts: [1, tokens, out_channels] for each stream."""

    video: Tensor
    audio: Tensor


class Evaluate(Protocol):
    """What evaluates guidance passes, as `Transformer.forward` does."""

    def __call__(
        self,
        video: StreamInput,
        audio: StreamInput,
        passes: Sequence[Pass],
        rows_at_once: int,
        run: RunBlocks,
    ) -> list[Velocity]: ...


class Transformer(Component):
    """Parameter names are those of the published file, below `model.diffusion_model.`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        video, audio = config.video, config.audio
        self.patchify_proj = nn.Linear(video.in_channels, video.width)
        self.audio_patchify_proj = nn.Linear(audio.in_channels, audio.width)
        self.keyframes_abs_pos_embedding: nn.Parameter | None = None
        if config.marks_pictures:
            self.keyframes_abs_pos_embedding = nn.Parameter(torch.empty(1, video.width))
        self.caption_projection: CaptionProjection | None = None
        self.audio_caption_projection: CaptionProjection | None = None
        if config.caption_width is not None:
            self.caption_projection = CaptionProjection(config.caption_width, video.context_dim)
            self.audio_caption_projection = CaptionProjection(
                config.caption_width, audio.context_dim
            )
        self.adaln_single = AdaLayerNormSingle(video.width, config.modulation_rows)
        self.audio_adaln_single = AdaLayerNormSingle(audio.width, config.modulation_rows)
        self.prompt_adaln_single: AdaLayerNormSingle | None = None
        self.audio_prompt_adaln_single: AdaLayerNormSingle | None = None
        if config.modulates_text:
            self.prompt_adaln_single = AdaLayerNormSingle(video.width, 2)
            self.audio_prompt_adaln_single = AdaLayerNormSingle(audio.width, 2)
        self.av_ca_video_scale_shift_adaln_single = AdaLayerNormSingle(video.width, 4)
        self.av_ca_audio_scale_shift_adaln_single = AdaLayerNormSingle(audio.width, 4)
        self.av_ca_a2v_gate_adaln_single = AdaLayerNormSingle(video.width, 1)
        self.av_ca_v2a_gate_adaln_single = AdaLayerNormSingle(audio.width, 1)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.scale_shift_table = nn.Parameter(torch.empty(2, video.width))
        self.audio_scale_shift_table = nn.Parameter(torch.empty(2, audio.width))
        self.proj_out = nn.Linear(video.width, video.out_channels)
        self.audio_proj_out = nn.Linear(audio.width, audio.out_channels)

    def rotary(
        self,
        video_positions: Tensor,
        audio_positions: Tensor,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[StreamRotary, StreamRotary]:
        """Angles of video [3, tokens] and audio [1, tokens] positions (seconds, pixels, pixels).

        Audio-video attention has the audio stream's width and rotates by time only.
        """
        video, audio, theta = self.config.video, self.config.audio, self.config.rope_theta
        latest = [max(video.max_positions[0], audio.max_positions[0])]

        def table(positions: Tensor, limits: Sequence[int], heads: int, width: int) -> Rotary:
            return rotary_table(positions, limits, heads, width, theta).to(device, dtype)

        return (
            StreamRotary(
                table(video_positions, video.max_positions, video.heads, video.width),
                table(video_positions[:1], latest, audio.heads, audio.width),
            ),
            StreamRotary(
                table(audio_positions, audio.max_positions, audio.heads, audio.width),
                table(audio_positions, latest, audio.heads, audio.width),
            ),
        )

    def forward(
        self,
        video: StreamInput,
        audio: StreamInput,
        passes: Sequence[Pass] = (Pass(),),
        rows_at_once: int | None = None,
        run: RunBlocks = run_blocks,
        exchange: Exchange = ONE_DEVICE,
    ) -> list[Velocity]:
        """Evaluate every pass; returns their velocities in the order of `passes`.

        rows_at_once: how many passes share a batch (default: all). run: the loop over the blocks.
        exchange: how attention reads video tokens of other devices, where `video` has a part; the
            velocities are those of all tokens.
        """
        rows_at_once = rows_at_once or len(passes)
        scale, gate_scale = self.config.timestep_scale, self.config.gate_timestep_scale
        video_time, video_embedded = self.adaln_single(video.timesteps * scale)
        audio_time, audio_embedded = self.audio_adaln_single(audio.timesteps * scale)
        # Audio-video attention is shifted and scaled by the stream's own timesteps, and gated by
        # the other stream's noise level.
        video_timesteps = TokenTimesteps.of(video.runs, video.latent.device)
        audio_timesteps = TokenTimesteps.of(audio.runs, audio.latent.device)
        video_conditions = StreamConditions(
            timesteps=video_timesteps,
            rotary=video.rotary.own,
            cross_rotary=video.rotary.cross,
            contexts=_projected(self.caption_projection, video.contexts),
            timestep=video_time,
            prompt=_of_prompt(self.prompt_adaln_single, video.sigma * scale),
            cross=self.av_ca_video_scale_shift_adaln_single(video.timesteps * scale)[0],
            cross_gate=self.av_ca_a2v_gate_adaln_single(audio.sigma * gate_scale)[0][0],
            bias=video.bias,
        )
        audio_conditions = StreamConditions(
            timesteps=audio_timesteps,
            rotary=audio.rotary.own,
            cross_rotary=audio.rotary.cross,
            contexts=_projected(self.audio_caption_projection, audio.contexts),
            timestep=audio_time,
            prompt=_of_prompt(self.audio_prompt_adaln_single, audio.sigma * scale),
            cross=self.av_ca_audio_scale_shift_adaln_single(audio.timesteps * scale)[0],
            cross_gate=self.av_ca_v2a_gate_adaln_single(video.sigma * gate_scale)[0][0],
            bias=audio.bias,
        )

        batches = run(
            cast("Iterable[Block]", self.transformer_blocks),
            first_batches(
                passes,
                self._embedded(video),
                self.audio_patchify_proj(audio.latent),
                rows_at_once,
            ),
            Sweep(tuple(passes), rows_at_once, video_conditions, audio_conditions, exchange),
        )

        velocities: dict[Pass, Velocity] = {}
        for batch in batches:
            video_out = self._output(
                batch.video,
                self.scale_shift_table,
                video_embedded,
                video_timesteps,
                self.proj_out,
                exchange,
            )
            audio_out = self._output(
                batch.audio,
                self.audio_scale_shift_table,
                audio_embedded,
                audio_timesteps,
                self.audio_proj_out,
                ONE_DEVICE,
            )
            for row, evaluated in enumerate(batch.passes):
                velocities[evaluated] = Velocity(video_out[row : row + 1], audio_out[row : row + 1])
        return [velocities[wanted] for wanted in passes]

    def _embedded(self, video: StreamInput) -> Tensor:
        """Hidden states of the video's tokens before the first block."""
        x: Tensor = self.patchify_proj(video.latent)
        if self.keyframes_abs_pos_embedding is not None:
            for start, stop in video.pictures:
                x[:, start:stop] += self.keyframes_abs_pos_embedding
        return x

    @staticmethod
    def _output(
        x: Tensor,
        table: Tensor,
        embedded: Tensor,
        timesteps: TokenTimesteps,
        projection: nn.Module,
        exchange: Exchange,
    ) -> Tensor:
        """For all tokens: the order of sums in so narrow a product depends on their number."""
        shift, scale = (table + embedded[:, None]).unbind(1)
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        h = modulate(normed, Modulation(shift, scale, timesteps))
        out: Tensor = projection(exchange.whole(h))
        return out


class CaptionProjection(nn.Module):
    """From the connectors' width to that which attention to text takes."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, context: Tensor) -> Tensor:
        """[text tokens, width] to [text tokens, out]."""
        hidden = F.gelu(self.linear_1(context), approximate="tanh")
        projected: Tensor = self.linear_2(hidden)
        return projected


def _projected(projection: CaptionProjection | None, contexts: Tensor) -> Tensor:
    """Every context by itself: how a product sums may depend on the number of its rows."""
    if projection is None:
        return contexts
    return torch.stack([projection(context) for context in contexts])


def _of_prompt(embedding: AdaLayerNormSingle | None, timestep: Tensor) -> Tensor | None:
    """What modulates the text's keys and values, [2, width]; None where nothing does."""
    if embedding is None:
        return None
    modulation: Tensor = embedding(timestep)[0]
    return modulation[0]
