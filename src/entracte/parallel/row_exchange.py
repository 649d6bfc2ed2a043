"""Sequence parallelism by writing into each other's memory, within the streams of a block.

The kernel that norms heads writes them where they are attended for, and one that leaves most of the
GPU to the products beside it copies what is not normed. Flags say when it is done; all of it can be
captured in a graph.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from entracte.models.transformer import Awaited, HeadRoom, TransformerConfig

from .row_memory import ALIGNMENT, Mapped
from .sequence import whole

VIDEO, AUDIO = 0, 1  # meetings, one for each lane


class RowExchange:
    """The transformer's `Exchange`, as `SequenceExchange`, through memory of the row.

    counts: the video tokens of every rank. slots: where each kind of tensor begins, and its bytes.
    In a block ranks meet before the first write, and between writing and reading: a slot is written
    again only after a meeting to which all came that read it.
    """

    captured = True

    def __init__(self, memory: Mapped, counts: Sequence[int], slots: Mapping[str, int]) -> None:
        self._memory = memory
        self._ranks = memory.ranks
        self._counts = tuple(counts)
        stops = list(accumulate(counts))
        self._first = stops[self._ranks.rank] - counts[self._ranks.rank]
        self._slots = slots
        self._unmet = [False, False]
        self._forked = False
        self._addresses: dict[tuple[object, ...], Tensor] = {}
        on_gpu = memory.device.type == "cuda"
        self._side = torch.cuda.Stream(memory.device) if on_gpu else None

    def room(self, what: str, rows: int, tokens: int, heads: int, like: Tensor) -> HeadRoom:
        shape = sum(self._counts), rows, heads // self._ranks.size, like.shape[-1]
        places = slice(self._first, self._first + tokens)
        return self._room(
            what,
            [memory[places].transpose(0, 1) for memory in self._of_all(what, shape, like.dtype)],
        )

    def tell(self, what: str, heads: Tensor, room: HeadRoom | None) -> Awaited:
        rows, tokens, count, head_dim = heads.shape
        lane = _lane(what)
        if room is None:
            room = self.room(what, rows, tokens, count, heads)
            split = heads.unflatten(2, (self._ranks.size, -1)).permute(2, 0, 1, 3, 4)
            with self._beside(lane):
                self._memory.copy(split.flatten(3), room)
        self._unmet[lane] = True
        shape = sum(self._counts), rows, count // self._ranks.size, head_dim

        def awaited() -> Tensor:
            self._meet(lane)
            return self._own(what, shape, heads.dtype).transpose(0, 1)

        return awaited

    def collect(self, attended: Tensor) -> Awaited:
        sent = attended.transpose(0, 1)
        ranks, start = self._ranks, 0
        with self._beside(VIDEO):
            for rank, count in enumerate(self._counts):
                shape = ranks.size, count, *sent.shape[1:]
                to = self._memory.view(rank, self._slots["out"], shape, sent.dtype)
                to[ranks.rank].copy_(sent[start : start + count])
                start += count
        self._unmet[VIDEO] = True
        mine = ranks.size, self._counts[ranks.rank], *sent.shape[1:]

        def awaited() -> Tensor:
            self._meet(VIDEO)
            return self._own("out", mine, sent.dtype).permute(2, 1, 0, 3, 4)

        return awaited

    def own(self, heads: Tensor) -> Tensor:
        return heads.chunk(self._ranks.size, dim=2)[self._ranks.rank]

    def gather(self, attended: Tensor) -> Awaited:
        shape = self._ranks.size, *attended.shape
        for rank in range(self._ranks.size):
            to = self._memory.view(rank, self._slots["audio out"], shape, attended.dtype)
            to[self._ranks.rank].copy_(attended)
        self._unmet[AUDIO] = True

        def awaited() -> Tensor:
            self._meet(AUDIO)
            return self._own("audio out", shape, attended.dtype).permute(1, 2, 0, 3, 4)

        return awaited

    def whole(self, x: Tensor) -> Tensor:
        return whole(self._ranks, x, self._counts)

    def part(self, what: str, tokens: Tensor) -> Tensor:
        self._memory.meet(_lane(what))  # the first of a block
        count, over = divmod(tokens.shape[1], self._ranks.size)
        return tokens if over else tokens.narrow(1, self._ranks.rank * count, count)

    def join(self, what: str, heads: Tensor, tokens: int) -> Awaited:
        mine, lane = heads.shape[1], _lane(what)
        if mine == tokens:
            return lambda: heads
        shape = heads.shape[0], tokens, *heads.shape[2:]
        here = slice(self._ranks.rank * mine, (self._ranks.rank + 1) * mine)
        room = self._room(
            what, [memory[:, here] for memory in self._of_all(what, shape, heads.dtype)]
        )
        with self._beside(lane):
            self._memory.copy(heads.flatten(2).expand(self._ranks.size, -1, -1, -1), room)
        self._unmet[lane] = True

        def awaited() -> Tensor:
            self._meet(lane)
            return self._own(what, shape, heads.dtype)

        return awaited

    def break_off(self) -> None:
        """See `RowMemory.break_off`."""
        self._memory.break_off()

    def _of_all(self, what: str, shape: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
        """What every rank has in a slot."""
        return [
            self._memory.view(rank, self._slots[what], shape, dtype)
            for rank in range(self._ranks.size)
        ]

    def _room(self, what: str, parts: Sequence[Tensor]) -> HeadRoom:
        key = what, parts[0].shape
        if key not in self._addresses:
            pointers = [part.data_ptr() for part in parts]
            self._addresses[key] = torch.tensor(
                pointers, dtype=torch.int64, device=self._memory.device
            )
        return HeadRoom(parts, None, self._addresses[key])

    def _own(self, what: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._memory.view(self._ranks.rank, self._slots[what], shape, dtype)

    def _beside(self, lane: int) -> AbstractContextManager[object]:
        """On a GPU what is copied in the video's lane goes over the link beside the next product;
        what is read for that has to stay until the meeting, and is held by what is awaited.
        """
        if self._side is None or lane != VIDEO:
            return nullcontext()
        self._forked = True
        self._side.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self._side)

    def _meet(self, lane: int) -> None:
        if self._side is not None and self._forked and lane == VIDEO:
            self._forked = False
            torch.cuda.current_stream().wait_stream(self._side)
        if self._unmet[lane]:
            self._unmet[lane] = False
            self._memory.meet(lane)


def _lane(what: str) -> int:
    return AUDIO if what.startswith("audio") else VIDEO


def slots_of(
    config: TransformerConfig,
    ranks: int,
    rows: int,
    tokens: int,
    audio: int,
    texts: tuple[int, int],
    itemsize: int,
) -> tuple[dict[str, int], int]:
    """Where each kind of tensor begins in memory of the row, and the bytes of all.

    rows: in a batch at most. tokens, audio: of the whole video and its sound. texts: contexts, and
    the tokens of each.
    """
    video, sound = config.video.width, config.audio.width
    numbers = {
        **{f"video {what}": rows * tokens * video // ranks for what in "qkv"},
        "out": rows * (tokens + ranks) * video // ranks,
        **{f"audio {what}": rows * tokens * sound // ranks for what in "kv"},
        "audio out": rows * audio * sound,
        **{f"video text {what}": prod(texts) * video for what in "kv"},
        **{f"audio text {what}": prod(texts) * sound for what in "kv"},
    }
    slots, end = {}, 0
    for what, count in numbers.items():
        slots[what] = end
        end += -(-count * itemsize // ALIGNMENT) * ALIGNMENT
    return slots, end
