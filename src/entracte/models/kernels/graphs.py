"""The loop over the transformer's blocks from captured CUDA graphs: a block is one launch.

A block's graph reads its weights where they are and its inputs from memory that stays. So it is
captured once for each place that weights are used at, and replayed for whatever lies there. What
orders weights and their use stays outside: events between the launches.
"""

import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entracte.models.transformer.attention import ONE_DEVICE
from entracte.models.transformer.block import Block, StreamConditions
from entracte.models.transformer.elementwise import Elementwise
from entracte.models.transformer.execution import BlockLoop, Sweep, run_block
from entracte.models.transformer.linear import Linear
from entracte.models.transformer.passes import Batch, Pass, Rows

# Above so many tokens in a batch the device is slower than the host, and a graph gains nothing.
MOST_TOKENS = 8192

# Shapes whose graphs are kept.
SHAPES = 4


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph of one block for some batches, and where the block's weights were.

    None for a block whose linears add something of their own, whose numbers may change.
    """

    block: weakref.ref[Block]  # whose weights may be freed while graphs are kept
    weights: int
    graph: torch.cuda.CUDAGraph | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the graphs of a sweep have in common beside the weights."""

    passes: tuple[Pass, ...]
    rows_at_once: int
    video: tuple[object, ...]
    audio: tuple[object, ...]


class CapturedBlocks:
    """`RunBlocks` from graphs; the same bits as the plain way, which it takes for large shapes."""

    def __init__(self, ops: Elementwise, device: torch.device) -> None:
        self._ops = ops
        self._loop = BlockLoop(ops)
        self._graphs: dict[_Shape, _Graphs] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        rows, tokens, _ = batches[0].video.shape
        if rows * tokens > MOST_TOKENS or sweep.exchange is not ONE_DEVICE:
            return self._loop.run(blocks, batches, sweep)
        shape = _Shape(sweep.passes, sweep.rows_at_once, _shape(sweep.video), _shape(sweep.audio))
        graphs = self._graphs.pop(shape, None)
        if graphs is None:
            while len(self._graphs) >= SHAPES:
                del self._graphs[next(iter(self._graphs))]
            graphs = _Graphs(batches[0], sweep, self._ops, self._pool, self._stream)
        self._graphs[shape] = graphs  # the last one used is last
        return graphs.run(blocks, batches, sweep)


class _Graphs:
    """The graphs of all blocks for one shape, and the memory that they read and write."""

    def __init__(
        self,
        first: Batch,
        sweep: Sweep,
        ops: Elementwise,
        pool: Any,  # a handle, whose type torch does not export
        stream: torch.cuda.Stream,
    ) -> None:
        passes = len(sweep.passes)
        self._x = first.video.new_empty((passes, *first.video.shape[1:]))
        self._y = first.audio.new_empty((passes, *first.audio.shape[1:]))
        self._sweep = deepcopy(sweep)
        self._graphs: dict[tuple[int, tuple[Rows, ...]], _Captured] = {}
        self._warm: set[tuple[Rows, ...]] = set()
        self._ops = ops
        self._pool = pool
        self._stream = stream

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        _write(self._sweep.video, sweep.video)
        _write(self._sweep.audio, sweep.audio)
        for index, block in enumerate(blocks):
            batches = self._held(sweep.join(batches, index))
            rows = tuple(batch.rows(index) for batch in batches)
            if rows not in self._warm:
                # Kernels are compiled and chosen at their first call, which cannot be captured.
                self._warm.add(rows)
                batches = run_block(block, index, batches, self._sweep, self._ops)
                continue
            place = id(block), rows
            weights = block.scale_shift_table.data_ptr()
            captured = self._graphs.get(place)
            if captured is None or captured.block() is not block or captured.weights != weights:
                graph = self._capture(block, index, batches) if _is_plain(block) else None
                captured = _Captured(weakref.ref(block), weights, graph)
                self._graphs[place] = captured
            if captured.graph is None:
                batches = run_block(block, index, batches, self._sweep, self._ops)
            else:
                captured.graph.replay()
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

    def _capture(self, block: Block, index: int, batches: list[Batch]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Other threads may go on to allocate and copy.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            failed: AbstractContextManager[None] = suppress(RuntimeError)
            try:
                run_block(block, index, batches, self._sweep, self._ops)
                failed = nullcontext()
            finally:
                with failed:  # what failed is of more interest than that nothing was captured
                    graph.capture_end()
        return graph


def _is_plain(block: Block) -> bool:
    return all(type(each) is Linear for each in block.modules() if isinstance(each, nn.Linear))


def _tensors(conditions: StreamConditions) -> list[Tensor]:
    c = conditions
    rotary = [c.rotary.cos, c.rotary.sin, c.cross_rotary.cos, c.cross_rotary.sin]
    numbers = [] if c.timesteps.numbers is None else [c.timesteps.numbers]
    return [c.contexts, c.timestep, c.prompt, c.cross, c.cross_gate, *rotary, *numbers]


def _shape(conditions: StreamConditions) -> tuple[object, ...]:
    tensors = _tensors(conditions)
    return (conditions.timesteps.runs, *((tuple(each.shape), each.dtype) for each in tensors))


def _write(held: StreamConditions, new: StreamConditions) -> None:
    for to, tensor in zip(_tensors(held), _tensors(new), strict=True):
        to.copy_(tensor)
