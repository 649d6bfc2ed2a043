"""Attention with query/key RMS norm over the full width, and perhaps a gate for every head."""

import torch
from torch import Tensor, nn

from entracte.models.float8 import Activations

from .elementwise import PLAIN, Elementwise
from .exchange import HeadRoom
from .linear import Linear, attention
from .norm import RMSNorm
from .rotary import Rotary


def takes_float8(*linears: nn.Module) -> bool:
    """Whether all of them take rows in float8, whose scales are not known before."""
    return all(isinstance(each, Linear) and each.takes_float8 for each in linears)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention; all tensors and the result are [rows, tokens, heads, head_dim].

    bias: see `attention`.
    """
    out = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
    return out.transpose(1, 2)


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another (or the same).

    gated: whether a head's output is scaled by 2*sigmoid(gate), so that a gate of zero leaves it
        unchanged.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        heads: int,
        head_dim: int,
        eps: float,
        gated: bool = True,
    ) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads = heads
        self.eps = eps
        self.q_norm = RMSNorm(width, eps)
        self.k_norm = RMSNorm(width, eps)
        self.to_q = Linear(query_dim, width)
        self.to_k = Linear(context_dim, width)
        self.to_v = Linear(context_dim, width)
        self.to_gate_logits = Linear(query_dim, heads) if gated else None
        self.to_out = nn.ModuleList([Linear(width, query_dim)])

    @property
    def asking(self) -> tuple[nn.Module, ...]:
        """The linears that take the asking tokens."""
        gates = () if self.to_gate_logits is None else (self.to_gate_logits,)
        return self.to_q, *gates

    @property
    def telling(self) -> tuple[nn.Module, nn.Module]:
        """The linears that take the tokens that are attended to."""
        return self.to_k, self.to_v

    def queries(
        self,
        x: Activations,
        rotary: Rotary | None = None,
        ops: Elementwise = PLAIN,
        room: HeadRoom | None = None,
    ) -> Tensor:
        """[rows, tokens, query_dim] -> [rows, tokens, heads, head_dim], or into the room."""
        q, weight = self.to_q(x), self.q_norm.weight
        return ops.normed_heads(q, weight, self.eps, self.heads, rotary, room)

    def keys(
        self,
        x: Activations,
        rotary: Rotary | None = None,
        ops: Elementwise = PLAIN,
        room: HeadRoom | None = None,
    ) -> Tensor:
        """[rows, tokens, context_dim] -> [rows, tokens, heads, head_dim], or into the room."""
        k, weight = self.to_k(x), self.k_norm.weight
        return ops.normed_heads(k, weight, self.eps, self.heads, rotary, room)

    def values(self, x: Activations) -> Tensor:
        """[rows, tokens, context_dim] -> [rows, tokens, heads, head_dim]"""
        return self.split(self.to_v(x))

    def gates(self, x: Activations, ops: Elementwise = PLAIN) -> Tensor | None:
        """Of the heads, by the query tokens: [rows, tokens, query_dim] -> [rows, tokens, heads].

        None where heads have no gates.
        """
        return None if self.to_gate_logits is None else ops.gates(self.to_gate_logits, x)

    def project(
        self,
        heads_out: Tensor,
        gates: Tensor | None,
        kept: Tensor | None = None,
        ops: Elementwise = PLAIN,
    ) -> Tensor:
        """Gate the heads, where they have gates, and project them to [rows, tokens, query_dim].

        heads_out: [rows, tokens, devices, heads / devices, head_dim], which is overwritten.
        kept: the heads of further rows, which follow it.
        """
        output = self.to_out[0]
        gated: Activations
        if gates is None:
            heads = heads_out.flatten(2, 3)
            gated = (heads if kept is None else torch.cat([heads, kept])).flatten(2)
        else:
            gated = ops.gated_heads(heads_out, gates, kept, takes_float8(output))
        out: Tensor = output(gated)
        return out

    def split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Self-attention of x [rows, tokens, query_dim]."""
        attended = attend(self.queries(x, rotary), self.keys(x, rotary), self.values(x))
        return self.project(attended.unsqueeze(2), self.gates(x))


class FeedForward(nn.Module):
    """Two linears with a tanh-GELU between; the names `net.0.proj` and `net.2` are the file's."""

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        first = _InnerProjection(width, bias)
        self.net = nn.ModuleList([first, nn.Identity(), Linear(4 * width, width, bias)])

    @property
    def first(self) -> nn.Module:
        """The linear that takes what this one is given."""
        return self.get_submodule("net.0.proj")

    def forward(self, x: Activations, ops: Elementwise = PLAIN) -> Tensor:
        last = self.net[2]
        out: Tensor = last(ops.gelu(self.net[0](x), takes_float8(last)))
        return out


class _InnerProjection(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.proj = Linear(width, 4 * width, bias)

    def forward(self, x: Activations) -> Tensor:
        out: Tensor = self.proj(x)
        return out
