"""The duration head: how long a video of a prompt should be, by its contexts."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .component import Component
from .connectors import TextContext

# Limits of what is asked for, in seconds.
SHORTEST, LONGEST = 1.0, 20.0


def frames_of(
    seconds: float, frame_rate: float, shortest: float = SHORTEST, longest: float = LONGEST
) -> int:
    """How many frames a video of so many seconds has: 8k + 1, within limits in seconds."""
    least = round(shortest * frame_rate)
    wanted = min(max(round(seconds * frame_rate), least), round(longest * frame_rate))
    frames = (wanted - 1) // 8 * 8 + 1
    return frames if frames >= least else frames + 8


class DurationHead(Component):
    """Built from the header's `duration_head`; video_width, audio_width: of the contexts."""

    def __init__(self, config: Mapping[str, Any], video_width: int, audio_width: int) -> None:
        super().__init__()
        width, queries = config.get("pooler_hidden_dim", 256), config.get("num_queries", 1)
        inner = config.get("mlp_hidden", 256)
        self.video_input_proj = nn.Linear(video_width, width)
        self.audio_input_proj = nn.Linear(audio_width, width)
        self.video_modality_emb = nn.Parameter(torch.empty(width))
        self.audio_modality_emb = nn.Parameter(torch.empty(width))
        self.attention_pooler = _Pooler(width, queries, config.get("num_pooler_heads", 4))
        self.mlp_hidden = nn.Linear(queries * width, inner)
        self.mlp_out = nn.Linear(inner, 1)

    def forward(self, context: TextContext) -> Tensor:
        """Seconds, [1], by the contexts of a prompt."""
        video = self.video_input_proj(context.video) + self.video_modality_emb
        audio = self.audio_input_proj(context.audio) + self.audio_modality_emb
        pooled = self.attention_pooler(torch.cat([video, audio], dim=1)).flatten(1)
        hidden = F.gelu(self.mlp_hidden(pooled), approximate="tanh")
        seconds: Tensor = self.mlp_out(hidden)[:, 0].exp()
        return seconds


class _Pooler(nn.Module):
    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(queries, width))
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """[1, tokens, width] to [1, queries, width]."""
        pooled: Tensor
        pooled, _ = self.cross_attn(self.query_tokens[None], tokens, tokens, need_weights=False)
        return pooled
