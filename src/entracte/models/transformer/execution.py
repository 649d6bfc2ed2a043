"""The loop over the transformer's blocks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .block import Block, StreamConditions
from .elementwise import PLAIN, Elementwise
from .exchange import ONE_DEVICE, Exchange
from .lanes import IN_TURN, Lanes
from .passes import Batch, Pass, join


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one evaluation of all passes has in common in every block.

    rows_at_once: how many passes share a batch at most. video, audio: what conditions each stream.
    exchange: how attention reads video tokens of other devices.
    """

    passes: tuple[Pass, ...]
    rows_at_once: int
    video: StreamConditions
    audio: StreamConditions
    exchange: Exchange = ONE_DEVICE

    def join(self, batches: list[Batch], index: int) -> list[Batch]:
        """The batches at a block, with the pass that leaves its twin there."""
        return join(batches, self.passes, index, self.rows_at_once)


class RunBlocks(Protocol):
    """Runs batches through all blocks; `run_blocks` is the plain way, for every device."""

    def __call__(
        self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep
    ) -> list[Batch]: ...


def run_block(
    block: Block,
    index: int,
    batches: list[Batch],
    sweep: Sweep,
    ops: Elementwise = PLAIN,
    lanes: Lanes = IN_TURN,
) -> list[Batch]:
    """Run batches through one block, whose place is `index`.

    What a block makes for all batches is given back before the next block makes its own.
    """
    video, audio = sweep.video, sweep.audio
    lanes.fork()
    shared = block.prepare(video, audio, ops, sweep.exchange, lanes)
    done = []
    for batch in batches:
        rows, exchange = batch.rows(index), sweep.exchange
        x, y = block(batch.video, batch.audio, video, audio, shared, rows, ops, exchange, lanes)
        done.append(Batch(batch.passes, x, y))
    lanes.join()
    return done


class BlockLoop:
    """`RunBlocks` with the given operations between products.

    A bound method is what to pass on: a function that calls another would hold on to the first
    batches for the whole loop.
    """

    def __init__(self, ops: Elementwise = PLAIN) -> None:
        self._ops = ops

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        """Run batches through all blocks, one block at a time, and return them at the end.

        blocks: in order. Each may be used until the next is asked for, and not after: its weights
            may share their memory with a later block's.
        batches: of the passes that run from the first block on; their states are overwritten.
            Passes that leave a twin later join on the way.
        """
        for index, block in enumerate(blocks):
            # Two statements: what was joined is given back before the block runs.
            batches = sweep.join(batches, index)
            batches = run_block(block, index, batches, sweep, self._ops)
        return batches


run_blocks = BlockLoop().run
