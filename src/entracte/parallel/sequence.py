"""Sequence parallelism: every device has a part of the video's tokens, and attends for some heads.

Around self-attention, heads are exchanged for tokens, so that each device has all tokens of its
heads. Source: DeepSpeed-Ulysses (arXiv 2309.14509). Audio and text tokens are on every device: they
are few, and do not divide evenly.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from entracte.models.transformer import Rotary, StreamInput, StreamRotary, TokenRun, attend

from .ranks import Ranks


def shares(tokens: int, ranks: int) -> list[int]:
    """How many tokens each rank has; the first ones have one more where they do not divide."""
    share, over = divmod(tokens, ranks)
    return [share + (rank < over) for rank in range(ranks)]


def part_of(stream: StreamInput, rank: int, counts: Sequence[int]) -> StreamInput:
    """A rank's tokens of a stream; counts: the tokens of every rank."""
    stop = list(accumulate(counts))[rank]
    start = stop - counts[rank]
    here = slice(start, stop)
    runs = tuple(
        TokenRun(max(run.start, start) - start, min(run.stop, stop) - start, run.timestep)
        for run in stream.runs
        if run.start < stop and run.stop > start
    )
    tables = stream.rotary.own, stream.rotary.cross
    own, cross = (Rotary(table.cos[here], table.sin[here]) for table in tables)
    return StreamInput(
        latent=stream.latent[:, here],  # with its strides, on which its rounding depends
        timesteps=stream.timesteps,
        runs=runs,
        sigma=stream.sigma,
        contexts=stream.contexts,
        rotary=StreamRotary(own, cross),
    )


class SequenceExchange:
    """The transformer's `Exchange` over some ranks; counts: the video tokens of every rank.

    The number of heads must be a multiple of their number.
    """

    def __init__(self, ranks: Ranks, counts: Sequence[int]) -> None:
        self._ranks = ranks
        self._counts = counts

    def among_video(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, tokens, heads, head_dim = q.shape
        out = attend(*self._all_tokens([q, k, v]))
        mine = [rows, tokens, heads // self._ranks.size, head_dim]
        told = out.split(list(self._counts), dim=1)
        parts = self._ranks.exchange(told, [mine] * self._ranks.size)
        return torch.cat(parts, dim=2)

    def from_video(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size, rank = self._ranks.size, self._ranks.rank
        q = q.chunk(size, dim=2)[rank]
        out = attend(q, *self._all_tokens([k, v]))
        return torch.cat(self._ranks.gather(out, [out.shape] * size), dim=2)

    def _all_tokens(self, tensors: list[Tensor]) -> list[Tensor]:
        """[rows, own tokens, heads, head_dim] each to [rows, all tokens, own heads, head_dim]."""
        size = self._ranks.size
        rows, _, heads, head_dim = tensors[0].shape
        parts = torch.stack(tensors).chunk(size, dim=3)
        shapes = [[len(tensors), rows, count, heads // size, head_dim] for count in self._counts]
        return list(torch.cat(self._ranks.exchange(parts, shapes), dim=2).unbind())
