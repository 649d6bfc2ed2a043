"""The loop over the transformer's blocks from captured graphs: a block is one launch.

Inputs and results are held by the shape of a sweep.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from entracte.models.transformer.block import Block, StreamConditions
from entracte.models.transformer.elementwise import Elementwise
from entracte.models.transformer.exchange import Exchange
from entracte.models.transformer.execution import BlockLoop, Sweep, run_block
from entracte.models.transformer.lanes import IN_TURN, Lanes
from entracte.models.transformer.passes import Batch, Pass

from .capture import Capture, PlacedGraphs

# Above so many tokens in a batch the device is slower than the host, and a graph gains nothing.
MOST_TOKENS = 8192

# Shapes whose graphs are kept: as many as a request has phases, which is what plans count.
SHAPES = 2

# The pool of all graphs, over what a block makes at most at once: measured, 1.73 to 1.78 at full
# size, as freed memory is not of every size that is asked for next, and two streams do not share.
POOL = 1.8

# Workspaces of cuBLAS, for the two streams that are captured.
WORKSPACES = 2 * 2**25


def captured(rows: int, tokens: int) -> bool:
    """Whether batches of so many rows and video tokens are run from graphs."""
    return rows * tokens <= MOST_TOKENS


def held_bytes(first: Batch, sweep: Sweep) -> int:
    """What is held for one shape of sweeps: its conditions, and the states of all its passes."""
    conditions = (*_tensors(sweep.video), *_tensors(sweep.audio))
    row = (first.video.nbytes + first.audio.nbytes) // len(first.passes)
    return sum(each.nbytes for each in conditions) + len(sweep.passes) * row


def pool_bytes(block: int) -> int:
    """What all graphs share, where a block makes at most so many bytes at once."""
    return round(POOL * block) + WORKSPACES


class CapturedBlocks:
    """`RunBlocks` from graphs, with the bits of the loop that it takes for large shapes."""

    def __init__(self, ops: Elementwise, capture: Capture, lanes: Lanes = IN_TURN) -> None:
        self._ops = ops
        self._lanes = lanes
        self._capture = capture
        self._loop = BlockLoop(ops)
        self._graphs: dict[_SweepShape, _Graphs] = {}

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        rows, tokens, _ = batches[0].video.shape
        if not captured(rows, tokens) or not sweep.exchange.captured:
            return self._loop.run(blocks, batches, sweep)
        shape = _SweepShape(
            sweep.passes,
            sweep.rows_at_once,
            sweep.exchange,
            _shape(sweep.video),
            _shape(sweep.audio),
        )
        graphs = self._graphs.pop(shape, None)
        if graphs is None:
            while len(self._graphs) >= SHAPES:
                del self._graphs[next(iter(self._graphs))]
            graphs = _Graphs(batches[0], sweep, self._ops, self._capture, self._lanes)
        self._graphs[shape] = graphs  # the last one used is last
        return graphs.run(blocks, batches, sweep)


class AudioStream:
    """`Lanes` on a GPU: audio, whose kernels are too small to fill it, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def fork(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())

    def audio(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def join(self) -> None:
        torch.cuda.current_stream().wait_stream(self._stream)


@dataclass(frozen=True, slots=True)
class _SweepShape:
    """What the graphs of a sweep have in common beside the weights."""

    passes: tuple[Pass, ...]
    rows_at_once: int
    exchange: Exchange
    video: tuple[object, ...]
    audio: tuple[object, ...]


class _Graphs:
    """The graphs of all blocks for one shape, and the memory that they read and write."""

    def __init__(
        self, first: Batch, sweep: Sweep, ops: Elementwise, capture: Capture, lanes: Lanes
    ) -> None:
        passes = len(sweep.passes)
        self._x = first.video.new_empty((passes, *first.video.shape[1:]))
        self._y = first.audio.new_empty((passes, *first.audio.shape[1:]))
        self._sweep = replace(sweep, video=deepcopy(sweep.video), audio=deepcopy(sweep.audio))
        self._ops = ops
        self._lanes = lanes
        self._graphs = PlacedGraphs(capture)

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        for held, given in ((self._sweep.video, sweep.video), (self._sweep.audio, sweep.audio)):
            for to, tensor in zip(_tensors(held), _tensors(given), strict=True):
                to.copy_(tensor)
        for index, block in enumerate(blocks):
            batches = self._held(sweep.join(batches, index))
            work = partial(run_block, block, index, batches, self._sweep, self._ops, self._lanes)
            self._graphs.run(block, tuple(batch.rows(index) for batch in batches), work)
        return batches

    def _held(self, batches: list[Batch]) -> list[Batch]:
        """The same batches, in the memory that graphs read."""
        found, start = [], 0
        for batch in batches:
            end = start + len(batch.passes)
            x, y = self._x[start:end], self._y[start:end]
            if batch.video.data_ptr() != x.data_ptr():
                x.copy_(batch.video)
                y.copy_(batch.audio)
            found.append(Batch(batch.passes, x, y))
            start = end
        return found


def _tensors(conditions: StreamConditions) -> list[Tensor]:
    c = conditions
    rotary = [c.rotary.cos, c.rotary.sin, c.cross_rotary.cos, c.cross_rotary.sin]
    numbers = [] if c.timesteps.numbers is None else [c.timesteps.numbers]
    prompt = [] if c.prompt is None else [c.prompt]
    bias = [] if c.bias is None else [c.bias]
    return [c.contexts, c.timestep, *prompt, c.cross, c.cross_gate, *rotary, *numbers, *bias]


def _shape(conditions: StreamConditions) -> tuple[object, ...]:
    tensors = _tensors(conditions)
    return (conditions.timesteps.runs, *((tuple(each.shape), each.dtype) for each in tensors))
