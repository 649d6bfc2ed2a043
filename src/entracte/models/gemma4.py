"""LTX-2.5's text encoder: the language half of a Gemma 4.

As against Gemma 3: norms multiply by their weight itself, values are normed, too, what attention
multiplies by is 1, and every layer has a scale of its own. Layers that attend to everything have
heads of another size, take the keys for values, and rotate only the first quarter of a head.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.errors import CheckpointError

from .calls import Call, call_plainly
from .gemma import BARE, MAX_TOKENS, rows_of
from .language_model import LanguageModel
from .transformer.norm import RMSNorm, rms_norm
from .transformer.rotary import Rotary, rotate

KINDS = ("sliding_attention", "full_attention")

# How keys of the language half begin in files with Hugging Face's names.
PREFIX = "model.language_model."


class Gemma4(LanguageModel):
    """Built from a `config.json` of Gemma 4; raises CheckpointError for one of another kind.

    Parameter names are those of the published file.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        text = config["text_config"]
        if not text["attention_k_eq_v"] or text.get("num_kv_shared_layers"):
            raise CheckpointError("text encoder config is not that of LTX-2.5's Gemma 4")
        self.width, self.layers = text["hidden_size"], text["num_hidden_layers"]
        self.kinds: tuple[str, ...] = tuple(text["layer_types"])
        if len(self.kinds) != self.layers or not set(self.kinds) <= set(KINDS):
            raise CheckpointError("text encoder config has a layer_types of another model")
        self._window = text["sliding_window"]
        self._pad = text.get("pad_token_id", 0)
        self._frequencies = {kind: _frequencies(text, kind) for kind in KINDS}
        self.model = _Decoder(text, self.kinds)

    def forward(self, tokens: Tensor, call: Call = call_plainly) -> Tensor:
        """Only the prompt is computed, at the positions that it has behind the padding of training.

        What fills its rows on a GPU comes last, where causal attention hides it.
        """
        count = len(tokens)
        rows = count if tokens.device.type == "cpu" else rows_of(tokens)
        ids = tokens.new_full((rows,), self._pad)
        ids[:count] = tokens
        embedded: Tensor = self.model.embed_tokens(ids)[None]
        x = embedded * embedded.new_tensor(math.sqrt(self.width))
        positions = torch.arange(rows, device=ids.device) + (MAX_TOKENS - count)
        angles = {kind: self._angles(kind, positions, x) for kind in KINDS}
        beyond = [self._mask(rows, ids.device)] if rows > self._window else []
        states = []
        for layer, kind in zip(self.model.layers, self.kinds, strict=True):
            states.append(x[0, :count])
            mask = beyond if kind == "sliding_attention" else []
            x = call(_layer, layer, x, *angles[kind], *mask)
        states.append(self.model.norm(x)[0, :count])
        return torch.stack(states, dim=-1)

    def _angles(self, kind: str, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, [rows, 1, head_dim / 2] each."""
        frequencies = self._frequencies[kind].to(x.device)
        angles = positions.float()[:, None, None] * frequencies
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    def _mask(self, rows: int, device: torch.device) -> Tensor:
        """Which earlier rows a row of a sliding layer attends to, [rows, rows]."""
        at = torch.arange(rows, device=device)
        back = at[:, None] - at
        seen: Tensor = (back >= 0) & (back < self._window)
        return seen


class _Decoder(nn.Module):
    def __init__(self, text: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(text["vocab_size"], text["hidden_size"])
        self.layers = nn.ModuleList(_Layer(text, kind) for kind in kinds)
        self.norm = RMSNorm(text["hidden_size"], text["rms_norm_eps"])


class _Layer(nn.Module):
    def __init__(self, text: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        width, eps = text["hidden_size"], text["rms_norm_eps"]
        self.self_attn = _Attention(text, kind)
        self.mlp = _FeedForward(width, text["intermediate_size"])
        self.input_layernorm = RMSNorm(width, eps)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.pre_feedforward_layernorm = RMSNorm(width, eps)
        self.post_feedforward_layernorm = RMSNorm(width, eps)
        self.layer_scalar = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), rotary, mask)
        x = x + self.post_attention_layernorm(attended)
        made = self.mlp(self.pre_feedforward_layernorm(x))
        x = x + self.post_feedforward_layernorm(made)
        scaled: Tensor = x * self.layer_scalar
        return scaled


class _Attention(nn.Module):
    def __init__(self, text: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        everywhere, width = kind == "full_attention", text["hidden_size"]
        dim, heads = text["head_dim"], text["num_key_value_heads"]
        if everywhere:
            dim, heads = text["global_head_dim"], text["num_global_key_value_heads"]
        self.head_dim, self.eps = dim, text["rms_norm_eps"]
        asking = text["num_attention_heads"] * dim
        self.q_proj = nn.Linear(width, asking, bias=False)
        self.k_proj = nn.Linear(width, heads * dim, bias=False)
        self.v_proj = None if everywhere else nn.Linear(width, heads * dim, bias=False)
        self.o_proj = nn.Linear(asking, width, bias=False)
        self.q_norm = RMSNorm(dim, self.eps)
        self.k_norm = RMSNorm(dim, self.eps)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None) -> Tensor:
        heads = -1, self.head_dim
        q, k = self.q_proj(x).unflatten(-1, heads), self.k_proj(x).unflatten(-1, heads)
        v = k if self.v_proj is None else self.v_proj(x).unflatten(-1, heads)
        q, k = rotate(self.q_norm(q), rotary), rotate(self.k_norm(k), rotary)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            rms_norm(v, self.eps).transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            scale=1.0,
            enable_gqa=True,
        )
        made: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return made


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.gelu(self.gate_proj(x), approximate="tanh")
        made: Tensor = self.down_proj(gated * self.up_proj(x))
        return made


def _layer(
    layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None
) -> Tensor:
    made: Tensor = layer(x, Rotary(cos, sin), mask)
    return made


def _frequencies(text: Mapping[str, Any], kind: str) -> Tensor:
    """Of every pair of a head, float32; 0 for those that do not rotate.

    Source: RoFormer (arXiv 2104.09864), for a part of each head.
    """
    dim = text["global_head_dim"] if kind == "full_attention" else text["head_dim"]
    rope = text["rope_parameters"][kind]
    turning = int(rope.get("partial_rotary_factor", 1.0) * dim / 2)
    with torch.device("cpu"):
        pairs = torch.arange(dim // 2, dtype=torch.float32)
        found = 1.0 / rope["rope_theta"] ** (2 * pairs / dim)
        return torch.where(pairs < turning, found, torch.zeros(()))


def file_to_module(key: str) -> str | None:
    """A key of the text encoder's file as a parameter of Gemma4; None for what is not of it."""
    name = f"model.{key.removeprefix(PREFIX)}" if key.startswith(PREFIX) else key
    return name if name.startswith(BARE) else None
