"""No mode waits longer than the hardware forces it to: simulated time against closed forms.

The model has the proportions of the full-size one but fewer blocks, so its times are known from
the bytes of a block, the device's rates, and the time that a block computes.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
from benchmarks.scaled_model import (
    BLOCKS,
    DECODING,
    PHASES,
    UPSAMPLING,
    Card,
    Simulation,
    Timeline,
    full_size,
)

from entracte.residency import Residency
from entracte.residency.simulated import Span

N = 8
STEPS, REFINEMENTS = (phase.sweeps for phase in PHASES)
H200 = Card("H200", 141_000_000_000, 4.3e12, 790e12, 55e9)
SLOW_MERGES = replace(H200, name="few operations, much bandwidth", bandwidth=8.6e12)
SHORT, LONG = (1536, 6144), (6144, 24576)  # video tokens in both stages

BLOCK, REST = full_size()
IN = BLOCK.nbytes / H200.link
SLACK = 0.002  # of alignment


def merging(card: Card) -> float:
    """Seconds to merge one block: it reads and writes the weights and reads the factors."""
    traffic = 2 * BLOCK.linears + BLOCK.lora
    return max(BLOCK.merge_flops / card.flops, traffic / card.bandwidth)


def second_request(
    wanted: Residency, tokens: tuple[int, int], card: Card = H200, blocks: int = N
) -> tuple[Simulation, Timeline, dict[str, list[Span]]]:
    """The steady state: the simulation, the second request, and its log by kind."""
    simulation = Simulation(card, wanted, tokens, blocks)
    simulation.request()
    timeline = simulation.request()
    kinds: dict[str, list[Span]] = {"copy in": [], "merge": [], "work": []}
    for span in simulation.accelerator.log:
        kinds.setdefault(span.what, []).append(span)
    return simulation, timeline, kinds


def seconds_per_sweep(sweeps: list[Span], blocks: int = N) -> list[float]:
    """From the end of every sweep to the end of the next."""
    ends = [span.end for span in sweeps[blocks - 1 :: blocks]]
    return [after - before for before, after in pairwise(ends)]


@pytest.mark.slow
def test_the_clock_is_that_of_the_full_size() -> None:
    """Sums of the whole transformer: 38 GB through the link, and a merge at the device's limits."""
    simulation = Simulation(H200, Residency("fused"), SHORT, BLOCKS)
    timeline = [simulation.request(), simulation.request()][1]
    merges = [span for span in simulation.accelerator.log if span.what == "merge"]
    assert len(merges) == BLOCKS * REFINEMENTS
    measured = sum(span.end - span.start for span in merges if span.end < timeline.decoded.start)
    assert measured >= REFINEMENTS * BLOCKS * merging(H200) * (1 - SLACK)
    assert sum(timeline.compute) == pytest.approx(
        28e9 * (STEPS * 4 * SHORT[0] + REFINEMENTS * SHORT[1]) / (0.8 * 790e12)
    )
    assert BLOCKS * IN + REST.nbytes / H200.link == pytest.approx(0.6905, rel=1e-3)


def test_resident_never_waits() -> None:
    _, timeline, kinds = second_request(Residency("resident"), SHORT)
    assert timeline.stalls == pytest.approx((0, 0), abs=1e-9)
    assert timeline.switch == pytest.approx(0, abs=1e-9)
    assert timeline.seconds == pytest.approx(sum(timeline.compute) + UPSAMPLING + DECODING)
    assert not kinds["copy in"]
    assert not kinds["merge"]


@pytest.mark.slow
@pytest.mark.parametrize("card", [H200, SLOW_MERGES], ids=lambda card: card.name)
@pytest.mark.parametrize("k", [0, 4, N])
def test_fused_waits_for_the_merges_alone(k: int, card: Card) -> None:
    """They take the processor; blocks that stay merged, and what is outside them, need none."""
    _, timeline, kinds = second_request(Residency("fused", merged_blocks=k), SHORT, card)
    assert len(kinds["merge"]) == REFINEMENTS * (N - k)
    waited = sum(timeline.stalls) + timeline.switch
    assert waited == pytest.approx(REFINEMENTS * (N - k) * merging(card), rel=0.01, abs=1e-9)
    assert not kinds["copy in"]


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("mode", ["fused", "snapshot"])
@pytest.mark.parametrize("m", [0, 4])
def test_a_sweep_takes_as_long_as_its_copies_or_its_work(mode: str, m: int) -> None:
    """And no bubble between steps: the link, or the processor, is never idle."""
    for tokens in (SHORT, LONG):
        simulation, timeline, _ = second_request(Residency(mode, resident_blocks=m), tokens)
        work = N * simulation.seconds_per_block[0]
        expected = max(work, (N - m) * IN)
        # The first steps live on what the slots held before; the last ones bring the next stage's.
        for measured in seconds_per_sweep(timeline.stages[0])[10:-2]:
            assert measured == pytest.approx(expected, rel=SLACK)


@pytest.mark.slow
@pytest.mark.parametrize("m", [0, 4])
def test_streaming_is_hidden_where_a_step_computes_for_longer(m: int) -> None:
    """Of what streams in for the merges of stage 2 too: only the merges are waited for."""
    _, timeline, _ = second_request(Residency("fused", resident_blocks=m), LONG)
    waited = sum(timeline.stalls) + timeline.switch
    assert waited == pytest.approx(REFINEMENTS * N * merging(H200), rel=0.02)


@pytest.mark.slow
def test_streamed_blocks_that_stay_merged_do_not_stream_in_stage_2() -> None:
    wanted = Residency("fused", resident_blocks=4, merged_blocks=4)
    _, timeline, kinds = second_request(wanted, SHORT)
    first, _ = timeline.stages
    # Stage 1's first blocks come back to the slots once: while stage 2 computes, or after it.
    arrived = [span for span in kinds["copy in"] if span.start > first[-1].end]
    assert len(arrived) <= 3
    waited = timeline.stalls[1] + timeline.switch
    assert waited <= REFINEMENTS * (N - 4) * merging(H200) * (1 + SLACK)


def test_low_vram_swaps_every_block_after_its_last_use() -> None:
    _, timeline, kinds = second_request(Residency("snapshot"), SHORT)
    last_step = timeline.stages[0][-N:]
    swaps = [span for span in kinds["copy in"] if span.start >= last_step[0].start][:N]
    free = 0.0
    for used, swap in zip(last_step, swaps, strict=True):
        assert swap.start == pytest.approx(max(used.end, free), abs=1e-9)
        free = swap.end


def test_low_vram_waits_for_nothing_where_the_last_step_hides_the_copies() -> None:
    """But for what is outside the blocks, which the last step uses to its end."""
    _, timeline, _ = second_request(Residency("snapshot"), LONG)
    assert timeline.stalls == pytest.approx((0, 0), abs=1e-9)
    assert timeline.switch <= REST.nbytes / H200.link + IN - UPSAMPLING + 1e-3


@pytest.mark.parametrize("tokens", [SHORT, LONG])
def test_low_vram_waits_only_for_what_the_link_cannot_bring_in_time(
    tokens: tuple[int, int],
) -> None:
    """A block computes for shorter than its copy takes: those of the last ones are waited for."""
    simulation, timeline, _ = second_request(Residency("snapshot"), tokens)
    before, after = simulation.seconds_per_block
    # From the first block's last use to the last one's first: the last step, the upsampling and
    # the first step of stage 2, less a block each.
    hidden = (N - 1) * (before + after) + UPSAMPLING
    forced = max(0.0, N * IN - hidden)
    assert timeline.stalls[1] + timeline.switch == pytest.approx(forced, abs=1e-3)


def test_low_vram_has_the_first_weights_back_after_the_decoding() -> None:
    _, timeline, kinds = second_request(Residency("snapshot"), SHORT)
    last_step = timeline.stages[1][-N:]
    back = [span for span in kinds["copy in"] if span.start >= last_step[0].end]
    assert len(back) == N
    assert back[0].start == pytest.approx(last_step[0].end, abs=1e-9)
    assert back[-1].end < timeline.decoded.end
    assert timeline.stalls[0] == pytest.approx(0, abs=1e-9)


def test_aggressive_has_all_copies_before_stage_2_and_never_waits() -> None:
    wanted = Residency("snapshot", snapshot_policy="aggressive")
    _, timeline, kinds = second_request(wanted, SHORT)
    assert len(kinds["copy in"]) == N + 1
    assert kinds["copy in"][-1].end < timeline.stages[0][-1].end
    assert timeline.stalls == pytest.approx((0, 0), abs=1e-9)
    assert timeline.switch == pytest.approx(0, abs=1e-9)


def test_aggressive_copies_are_spread_over_stage_1() -> None:
    wanted = Residency("snapshot", snapshot_policy="aggressive")
    _, timeline, kinds = second_request(wanted, SHORT)
    apart = timeline.compute[0] / (N + 1)
    for before, after in pairwise(kinds["copy in"]):
        assert after.start - before.start == pytest.approx(apart, rel=0.2)


def test_original_waits_for_what_it_restores() -> None:
    """The baseline: the base comes back, block after block, before the next request begins."""
    _, timeline, _ = second_request(Residency("original"), SHORT)
    restored = N * IN + REST.nbytes / H200.link
    assert timeline.stalls[0] > 0.3 * restored
    assert timeline.stalls[0] <= restored + 1e-3


def test_one_request_adds_up() -> None:
    for wanted in (Residency("fused", resident_blocks=4), Residency("snapshot")):
        _, timeline, _ = second_request(wanted, SHORT, blocks=4)
        parts = (*timeline.stalls, timeline.switch, *timeline.compute, UPSAMPLING, DECODING)
        assert timeline.seconds == pytest.approx(sum(parts), rel=1e-6)
