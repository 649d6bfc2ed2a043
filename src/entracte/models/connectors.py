"""Turns Gemma's hidden states into the contexts that the transformer attends to.

Each stream has a projection and a small transformer of its own. Padding is replaced by learned
registers, so that every one of the 1,024 tokens is attended to and no mask is needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .component import Component
from .transformer.attention import Attention, FeedForward
from .transformer.rotary import Rotary, rotary_table

CONTEXT_TOKENS = 1024

# What LTX-2.0 multiplies normalised states by.
STATES_SCALE = 8
REGISTERS = 128


@dataclass(frozen=True, slots=True)
class TextContext:
    """One prompt's contexts: [1, 1024, width of the stream] each."""

    video: Tensor
    audio: Tensor


class Connectors(Component):
    """The projection of the text encoder's states, and a connector for each stream.

    text_width: the width of the states times their number (the text encoder's layers + 1).
    shared: whether both streams have one projection, and connectors of the same sizes (LTX-2.0).
    """

    def __init__(self, config: Mapping[str, Any], text_width: int, shared: bool = False) -> None:
        super().__init__()
        self.video_embeddings_connector = Connector(config, "")
        self.audio_embeddings_connector = Connector(config, "" if shared else "audio_")
        width, audio_width = (
            self.video_embeddings_connector.width,
            self.audio_embeddings_connector.width,
        )
        self.text_embedding_projection: SharedProjection | Projections = (
            SharedProjection(text_width, width)
            if shared
            else Projections(text_width, width, audio_width)
        )

    def restore_buffers(self) -> None:
        self.video_embeddings_connector.compute_angles()
        self.audio_embeddings_connector.compute_angles()

    def forward(self, states: Tensor) -> TextContext:
        """Turn the hidden states of the prompt's own tokens into a context for each stream.

        states: [tokens, hidden width, layers + 1], no padding, at most 1,024 tokens.
        """
        video, audio = self.text_embedding_projection(states)
        return TextContext(
            self.video_embeddings_connector(video), self.audio_embeddings_connector(audio)
        )


class Projections(nn.Module):
    """A projection for each stream, of states whose every layer is RMS-normed by token."""

    def __init__(self, width: int, video_width: int, audio_width: int) -> None:
        super().__init__()
        self.video_aggregate_embed = nn.Linear(width, video_width)
        self.audio_aggregate_embed = nn.Linear(width, audio_width)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States as `Connectors` takes them to [tokens, width of the stream] for each."""
        variance = states.square().mean(dim=1, keepdim=True)
        normed = (states * torch.rsqrt(variance + 1e-6)).flatten(1)
        video, audio = self.video_aggregate_embed, self.audio_aggregate_embed
        hidden_width = states.shape[1]
        return (
            video(normed * math.sqrt(video.out_features / hidden_width)),
            audio(normed * math.sqrt(audio.out_features / hidden_width)),
        )


class SharedProjection(nn.Module):
    """One projection, of states whose every layer is centred and divided by its range."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.aggregate_embed = nn.Linear(width, out, bias=False)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States as `Connectors` takes them to [tokens, width], for both streams the same."""
        mean = states.sum(dim=(0, 1)) / (states[..., 0].numel() + 1e-6)
        spread = states.amax(dim=(0, 1)) - states.amin(dim=(0, 1))
        normed = STATES_SCALE * (states - mean) / (spread + 1e-6)
        tokens = self.aggregate_embed(normed.flatten(1))
        return tokens, tokens


class Connector(nn.Module):
    """A transformer over one stream's projected text. `prefix` selects its part of the config.

    cos, sin: of the positions of the context, which are the same for every prompt.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Mapping[str, Any], prefix: str) -> None:
        super().__init__()
        self.heads = config[f"{prefix}connector_num_attention_heads"]
        head_dim = config[f"{prefix}connector_attention_head_dim"]
        gated = config.get("connector_apply_gated_attention", False)
        bias = config.get("connector_ff_bias", True)
        self.width = self.heads * head_dim
        self.eps = config["norm_eps"]
        self.theta = config["positional_embedding_theta"]
        self.max_positions = config["connector_positional_embedding_max_pos"]
        self.learnable_registers = nn.Parameter(torch.empty(REGISTERS, self.width))
        self.transformer_1d_blocks = nn.ModuleList(
            ConnectorBlock(self.width, self.heads, head_dim, self.eps, gated, bias)
            for _ in range(config[f"{prefix}connector_num_layers"])
        )
        for name in ("cos", "sin"):
            angles = torch.empty(CONTEXT_TOKENS, self.heads, head_dim // 2)
            self.register_buffer(name, angles, persistent=False)

    def compute_angles(self) -> None:
        """Fill the buffers, on the CPU."""
        positions = torch.arange(CONTEXT_TOKENS, dtype=torch.float32)[None]
        angles = rotary_table(positions, self.max_positions, self.heads, self.width, self.theta)
        self.cos, self.sin = angles.cos, angles.sin

    def forward(self, tokens: Tensor) -> Tensor:
        """[tokens, width] to [1, 1024, width]: the prompt's tokens first, registers after them.

        Register i belongs to position i, so the prompt's tokens take the place of the first ones.
        """
        registers = self.learnable_registers.repeat(CONTEXT_TOKENS // REGISTERS, 1)
        x = torch.cat([tokens, registers[len(tokens) :]]).unsqueeze(0)
        # They stay there: to send them for every prompt would take as long as two blocks.
        self.cos, self.sin = self.cos.to(x.device), self.sin.to(x.device)
        rotary = Rotary(self.cos, self.sin).to(x.device, x.dtype)
        for block in self.transformer_1d_blocks:
            x = block(x, rotary)
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)


class ConnectorBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        eps: float,
        gated: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.attn1 = Attention(width, width, heads, head_dim, eps, gated)
        self.ff = FeedForward(width, bias)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = x + self.attn1(F.rms_norm(x, x.shape[-1:], eps=self.eps), rotary)
        out: Tensor = x + self.ff(F.rms_norm(x, x.shape[-1:], eps=self.eps))
        return out
