"""The floor under an evaluation of the transformer: its bare matrix products and attentions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import Pass, TransformerConfig
from entracte.models.transformer.attention import Attention, attend
from entracte.models.transformer.block import Block
from entracte.models.transformer.passes import Rows, first_batches, join

# Blocks of random weights are made until no cache holds them from one use to the next.
FRESH_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The shapes of one evaluation: what the passes of a denoising step are computed on."""

    video_tokens: int
    audio_tokens: int
    passes: tuple[Pass, ...]
    rows_at_once: int

    @property
    def contexts(self) -> int:
        return 1 + max(each.context for each in self.passes)

    def rows(self, layers: int) -> Iterator[list[Rows]]:
        """The batches of every block, as the engine makes them."""
        nothing = torch.empty(1, 0, 0)
        batches = first_batches(self.passes, nothing, nothing, self.rows_at_once)
        for index in range(layers):
            batches = join(batches, self.passes, index, self.rows_at_once)
            yield [batch.rows(index) for batch in batches]


class Floor:
    """The products and attentions of one evaluation, on inputs that stand still, nothing between.

    A pass that skips self-attention counts from the block where it leaves its twin on, and the keys
    and values of texts count once for all passes. An isolated pass counts as a whole one, although
    it has no attention between audio and video.

    blocks: whose linears are used, in turn, for all layers. On a GPU the floor is replayed from a
    CUDA graph, so that it is the device's whatever the host does.
    """

    def __init__(self, blocks: Sequence[Block], config: TransformerConfig, of: Evaluation) -> None:
        self._blocks = blocks
        self._batches = list(of.rows(config.layers))
        weight = blocks[0].attn1.to_q.weight

        def random(rows: int, tokens: int, width: int) -> Tensor:
            return torch.randn(rows, tokens, width, device=weight.device).to(weight.dtype)

        video, audio, rows = config.video, config.audio, of.rows_at_once
        self._x = random(rows, of.video_tokens, video.width)
        self._y = random(rows, of.audio_tokens, audio.width)
        self._text = random(of.contexts, CONTEXT_TOKENS, video.context_dim)
        self._audio_text = random(of.contexts, CONTEXT_TOKENS, audio.context_dim)
        self._step = replayed(self._evaluate) if weight.is_cuda else self._evaluate

    def __call__(self) -> None:
        self._step()

    def _evaluate(self) -> None:
        for block, batches in zip(cycle(self._blocks), self._batches, strict=False):
            text = _keys_and_values(block.attn2, self._text)
            audio_text = _keys_and_values(block.audio_attn2, self._audio_text)
            for rows in batches:
                self._block(block, rows, text, audio_text)

    def _block(
        self,
        block: Block,
        rows: Rows,
        text: tuple[Tensor, Tensor],
        audio_text: tuple[Tensor, Tensor],
    ) -> None:
        count = len(rows.contexts)
        x, y = self._x[:count], self._y[:count]
        _attend_to_itself(block.attn1, x, rows.video_attending)
        _attend_to_itself(block.audio_attn1, y, rows.audio_attending)
        _attend(block.attn2, x, text)
        _attend(block.audio_attn2, y, audio_text)
        _attend(block.audio_to_video_attn, x, _keys_and_values(block.audio_to_video_attn, y))
        _attend(block.video_to_audio_attn, y, _keys_and_values(block.video_to_audio_attn, x))
        for feed_forward, each in ((block.ff, x), (block.audio_ff, y)):
            feed_forward.net[2](feed_forward.net[0](each))


def _keys_and_values(attention: Attention, told: Tensor) -> tuple[Tensor, Tensor]:
    return attention.split(attention.to_k(told)), attention.split(attention.to_v(told))


def _gates(attention: Attention, x: Tensor) -> None:
    if attention.to_gate_logits is not None:
        attention.to_gate_logits(x)


def _attend_to_itself(attention: Attention, x: Tensor, attending: int) -> None:
    """Rows from `attending` on have values only."""
    values = attention.to_v(x)
    _gates(attention, x)
    if attending:
        asking = x[:attending]
        q, k = attention.split(attention.to_q(asking)), attention.split(attention.to_k(asking))
        attend(q, k, attention.split(values)[:attending])
    attention.to_out[0](values)


def _attend(attention: Attention, asking: Tensor, told: tuple[Tensor, Tensor]) -> None:
    """What is told has a row for every row that asks, or for every text."""
    q = attention.to_q(asking)
    _gates(attention, asking)
    rows = len(asking)
    k, v = (
        each[:rows] if len(each) >= rows else each[:1].expand(rows, -1, -1, -1) for each in told
    )
    attend(attention.split(q), k, v)
    attention.to_out[0](q)


def random_blocks(
    config: TransformerConfig, device: torch.device, dtype: torch.dtype
) -> list[Block]:
    """Blocks with random weights: as many as no cache holds, at most all."""
    with torch.device("meta"):
        shapes = {name: each.shape for name, each in Block(config).state_dict().items()}
    nbytes = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    blocks = []
    for _ in range(min(config.layers, math.ceil(FRESH_BYTES / nbytes))):
        with torch.device("meta"):
            block = Block(config)
        weights = {
            name: torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02)
            for name, shape in shapes.items()
        }
        block.load_state_dict(weights, assign=True)
        blocks.append(block.requires_grad_(False))
    return blocks


def replayed(step: Callable[[], Any]) -> Callable[[], None]:
    """A step on a GPU as one launch. What it computes on is to stay where it is."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # kernels are loaded and chosen
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
