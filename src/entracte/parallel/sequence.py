"""Sequence parallelism: every device has a part of the video's tokens, and attends for some heads.

Around self-attention, heads are exchanged for tokens, so that each device has all tokens of its
heads. Source: DeepSpeed-Ulysses (arXiv 2309.14509). Audio and text tokens are on every device: they
are few, and do not divide evenly.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from entracte.models.transformer import (
    Awaited,
    HeadRoom,
    Rotary,
    StreamInput,
    StreamRotary,
    TokenRun,
)

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
        pictures=tuple(
            (max(first, start) - start, min(last, stop) - start)
            for first, last in stream.pictures
            if first < stop and last > start
        ),
        bias=stream.bias,  # a rank attends with all tokens, for some heads
    )


def whole(ranks: Ranks, x: Tensor, counts: Sequence[int]) -> Tensor:
    """Every rank's [rows, own tokens, width] in one, [rows, tokens, width]."""
    rows, _, width = x.shape
    return torch.cat(ranks.gather(x, [[rows, count, width] for count in counts]), dim=1)


class SequenceExchange:
    """The transformer's `Exchange` over some ranks; counts: the video tokens of every rank.

    The number of heads must be a multiple of their number. What is on its way has the tokens first,
    so that nothing but values is copied beside: heads are written as they are sent, attention reads
    them as they arrive, and its result is sent as it is.
    """

    def __init__(self, ranks: Ranks, counts: Sequence[int], captured: bool = False) -> None:
        self.captured = captured
        self._ranks = ranks
        self._counts = tuple(counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SequenceExchange):
            return NotImplemented
        return self._ranks is other._ranks and self._counts == other._counts

    def __hash__(self) -> int:
        return hash(self._counts)

    def room(self, _what: str, rows: int, tokens: int, heads: int, like: Tensor) -> HeadRoom:
        ranks = self._ranks.size
        memory = like.new_empty((ranks, tokens, rows, heads // ranks, like.shape[-1]))
        return HeadRoom(memory.transpose(1, 2).unbind(), memory)

    def tell(self, what: str, heads: Tensor, room: HeadRoom | None) -> Awaited:
        if room is None:
            rows, tokens, count, _ = heads.shape
            room = self.room(what, rows, tokens, count, heads)
            room.fill(heads)
        sent = room.memory
        assert sent is not None
        received = sent.new_empty((sum(self._counts), *sent.shape[2:]))
        work = self._ranks.to_all(sent, received, *self._parts(to_tokens=True))

        def pending() -> Tensor:
            work.wait()
            return received.transpose(0, 1)

        return pending

    def collect(self, attended: Tensor) -> Awaited:
        sent = attended.transpose(0, 1).contiguous()
        ranks, mine = self._ranks.size, self._counts[self._ranks.rank]
        received = sent.new_empty((ranks, mine, *sent.shape[1:]))
        work = self._ranks.to_all(sent, received, *self._parts(to_tokens=False))

        def pending() -> Tensor:
            work.wait()
            return received.permute(2, 1, 0, 3, 4)

        return pending

    def own(self, heads: Tensor) -> Tensor:
        return heads.chunk(self._ranks.size, dim=2)[self._ranks.rank]

    def whole(self, x: Tensor) -> Tensor:
        return whole(self._ranks, x, self._counts)

    def part(self, _what: str, tokens: Tensor) -> Tensor:
        count, over = divmod(tokens.shape[1], self._ranks.size)
        return tokens if over else tokens.narrow(1, self._ranks.rank * count, count)

    def join(self, _what: str, heads: Tensor, tokens: int) -> Awaited:
        if heads.shape[1] == tokens:
            return lambda: heads
        mine = heads.transpose(0, 1).contiguous()
        received = mine.new_empty((self._ranks.size * len(mine), *mine.shape[1:]))
        work = self._ranks.all_gather(mine, received)

        def pending() -> Tensor:
            work.wait()
            return received.transpose(0, 1)

        return pending

    def gather(self, attended: Tensor) -> Awaited:
        mine = attended.contiguous()
        received = mine.new_empty((self._ranks.size, *mine.shape))
        work = self._ranks.all_gather(mine, received)

        def pending() -> Tensor:
            work.wait()
            return received.permute(1, 2, 0, 3, 4)

        return pending

    def _parts(self, to_tokens: bool) -> Sequence[Sequence[int]]:
        """What is given and received: a part of the heads, and the tokens of a rank."""
        if len(set(self._counts)) == 1:
            return ()
        parts = [1] * self._ranks.size, self._counts
        return parts if to_tokens else parts[::-1]
