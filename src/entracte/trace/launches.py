"""Waits of the device for the host to launch what a block computes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from entracte.residency import BlockRun

from .clock import Moments
from .waits import Exposure

# A device that has done all but so much, in seconds, of what the host enqueued has caught up.
CAUGHT_UP = 2e-4


def launch_waits(
    blocks: Sequence[BlockRun], stage_ends: Sequence[float], moments: Moments
) -> Iterator[Exposure]:
    """What blocks took longer than they compute, where the device had caught up with the host.

    A block computes the same in all steps of a stage: what it took at the least. If the host is
    behind in every step, the rest of the wait goes unseen.

    stage_ends: in order, in seconds as `moments` gives them.
    """
    runs: dict[tuple[int, str, int], list[tuple[float, float, bool]]] = defaultdict(list)
    for block in blocks:
        begin, end = moments.at_most(block.begin), moments.at_most(block.end)
        stage = sum(each < end for each in stage_ends)
        caught_up = end - moments.since_zero(block.launched) < CAUGHT_UP
        runs[stage, block.component, block.unit].append((begin, end, caught_up))
    for (_, component, unit), found in runs.items():
        least = min(end - begin for begin, end, _ in found)
        for begin, end, caught_up in found:
            if caught_up and end - begin > least:
                yield Exposure(begin + least, end, "launch", component, unit)
