"""Audio beside video: neither lane reads, overwrites or frees what the other may be at work on."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from entracte.models.transformer import Sweep, Transformer, run_blocks
from entracte.models.transformer import block as block_module
from entracte.models.transformer.block import Block
from entracte.models.transformer.execution import run_block
from entracte.models.transformer.lanes import Lanes
from entracte.models.transformer.passes import Batch

from .test_passes import PASSES, inputs, model  # noqa: F401


class Race(Exception):
    """One lane's access is not ordered after the other's."""


class Watched(TorchDispatchMode):
    """Lanes that note who wrote and read every storage, and when; times are those of each lane."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = "video"
        self.forks = 0
        self._time = {"video": 0, "audio": 0}
        self._seen = {"video": 0, "audio": 0}  # of the other lane's time
        self._writes: dict[int, tuple[str, int]] = {}
        self._reads: dict[tuple[int, str], int] = {}
        self.races: list[str] = []

    def fork(self) -> None:
        self.forks += 1
        self._seen["audio"] = self._time["video"]

    def join(self) -> None:
        self._seen["video"] = self._time["audio"]

    @contextmanager
    def audio(self) -> Iterator[None]:
        self.lane = "audio"
        yield
        self.lane = "video"

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        lane = self.lane
        self._time[lane] += 1
        given = _storages([args, named])
        written = _storages(
            [
                named.get(argument.name, args[at] if at < len(args) else None)
                for at, argument in enumerate(func._schema.arguments)
                if argument.is_write
            ]
        )
        for key in given:
            self._check("reads", lane, self._writes.get(key))
            self._reads[key, lane] = self._time[lane]
        for key in written:
            for other in self._time:
                self._check("overwrites", lane, (other, self._reads.get((key, other), 0)))
            self._writes[key] = lane, self._time[lane]
        out = func(*args, **named)
        for key, storage in _storages(out).items():
            if key not in given:
                self._writes[key] = lane, self._time[lane]
                weakref.finalize(storage, self._freed, key, lane)
        return out

    def _check(self, does: str, lane: str, accessed: tuple[str, int] | None) -> None:
        if accessed is not None and accessed[0] != lane and accessed[1] > self._seen[lane]:
            raise Race(f"{lane} {does} what {accessed[0]} may be at work on")

    def _freed(self, key: int, home: str) -> None:
        """The memory may be used again by the lane that it was allocated in."""
        self._writes.pop(key, None)
        for other in self._time:
            read = self._reads.pop((key, other), 0)
            if other != home and read > self._seen[home]:
                self.races.append(f"{home} frees what {other} may be at work on")


def _storages(of: object) -> dict[int, torch.UntypedStorage]:
    tensors = [each for each in tree_leaves(of) if isinstance(each, Tensor)]
    return {id(each.untyped_storage()): each.untyped_storage() for each in tensors}


def forward(transformer: Transformer, watched: Watched, rows_at_once: int) -> list[Tensor]:
    def run(blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        with watched:
            for index, block in enumerate(blocks):
                batches = sweep.join(batches, index)
                batches = run_block(block, index, batches, sweep, lanes=watched)
        return batches

    made = transformer(*inputs(transformer), PASSES, rows_at_once=rows_at_once, run=run)
    return [tensor for each in made for tensor in (each.video, each.audio)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_lanes_do_not_race(model: Transformer, rows_at_once: int) -> None:  # noqa: F811
    watched = Watched()
    made = forward(model, watched, rows_at_once)
    assert watched.forks > len(model.transformer_blocks)
    assert watched.races == []
    plain = model(*inputs(model), PASSES, rows_at_once=rows_at_once, run=run_blocks)
    expected = [tensor for each in plain for tensor in (each.video, each.audio)]
    assert all(map(torch.equal, made, expected))


def first_only() -> Callable[[Lanes], None]:
    """The lanes meet before they read each other's, and not after."""
    meetings = iter(range(100))

    def meet(lanes: Lanes) -> None:
        if next(meetings) % 2 == 0:
            lanes.join()
            lanes.fork()

    return meet


def test_lanes_that_do_not_meet_are_caught(
    model: Transformer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_module, "meet", lambda _: None)
    with pytest.raises(Race, match="reads"):
        forward(model, Watched(), 4)
    monkeypatch.setattr(block_module, "meet", first_only())
    watched = Watched()
    forward(model, watched, 4)
    assert any("frees" in race for race in watched.races)
