"""How phases are shared out over several devices, and what that is predicted to take."""

from dataclasses import replace
from typing import Any

import pytest

from entracte.machine.cards import card
from entracte.machine.hardware import Hardware, PeerLink
from entracte.machine.peers import with_devices
from entracte.parallel import ONE_RANK, Layout
from entracte.planner.calibration import Calibration
from entracte.planner.costs import Costs, costs
from entracte.planner.decision import decide
from entracte.planner.forecast import weight_phases
from entracte.planner.group import compare
from entracte.planner.limits import limits_of
from entracte.planner.model_profile import published
from entracte.planner.planner import Planner
from entracte.planner.sharing import share_out
from entracte.planner.transformer_work import LoopWork, TransformerMeter
from entracte.planner.work import stage_work
from entracte.planner.workload import PhaseLoad, Workload
from entracte.residency import AUTO, Plan, Residency
from entracte.units import GIB

MODEL = published("ltx-2.3")
METER = TransformerMeter.of(MODEL)
WIDTH, TEXT, AUDIO, ITEM = 4096, 1024, 126, 2


def load(
    height: int = 512, width: int = 768, images: int = 0, steps: int | None = None
) -> Workload:
    return Workload.of_sizes(
        layers=MODEL.transformer.layers,
        height=height,
        width=width,
        images=images,
        steps=steps,
        on_gpu=True,
        defaults=MODEL.version.defaults,
    )


def costs_of(hardware: Hardware, work: Workload) -> Costs:
    phases = weight_phases("two-stage", work, MODEL)
    return costs(MODEL, work, phases, hardware, Calibration(), METER)


def group(name: str, devices: int) -> Hardware:
    return card(name, 256 * GIB, devices)


def test_what_ranks_exchange() -> None:
    """By the shapes: q, k, v and heads of self-attention, k and v and heads of audio's, and the
    keys and values of the text for both, of which each rank makes half.
    """
    stage1, stage2 = load().phases
    refine, layers = METER.loop(stage2, Layout(1, 2)), MODEL.transformer.layers
    mine = stage2.video_tokens // 2
    among_video = 4 * mine * WIDTH // 2
    to_audio = 2 * mine * (WIDTH // 2) // 2 + AUDIO * (WIDTH // 2) // 2
    text = 2 * (TEXT // 2) * (WIDTH + WIDTH // 2)
    a_sweep = layers * (among_video + to_audio + text) * ITEM
    assert refine.exchanged == pytest.approx(stage2.evaluations * a_sweep, rel=0.01)
    a_block = refine.exchanges / stage2.evaluations / layers
    assert 7 <= a_block < 12
    passes = METER.loop(stage1, Layout(2, 1))
    assert passes.exchanges == stage1.evaluations * 2


def test_ranks_have_their_shares() -> None:
    """A rank of two has half of the video's work and the text's, and all of the audio's."""
    for phase in load().phases:
        whole, half = METER.loop(phase), METER.loop(phase, Layout(1, 2))
        assert 0.5 < half.flops / whole.flops < 0.54
        assert half.block_calls == whole.block_calls
    guided = load().phases[0]
    dearest = METER.loop(guided, Layout(2, 1)).flops / METER.loop(guided).flops
    assert dearest == pytest.approx(2 / (3 + 20 / 48), rel=0.03)


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(3, 1), Layout(4, 1)])
def test_the_row_that_is_metered_has_most_to_do(layout: Layout) -> None:
    guided = replace(load().phases[0], steps=1, evaluations=1, name="")
    works = [METER._metered(guided, layout, rank) for rank in range(layout.ranks)]
    found = METER.loop(guided, layout)
    assert found.flops == max(work.flops for work in works)
    assert found.nbytes == max(work.nbytes for work in works)


def test_memory_that_ranks_write_into_is_in_the_plan() -> None:
    """q, k, v and the heads of the video, k and v and heads for audio, k and v of the text for
    both; by shapes. It stays for the next request, so every stage has it.
    """
    work, layouts = load(), (Layout(1, 2), Layout(1, 2))
    expected = 0
    for phase in work.phases:
        rows, tokens = phase.rows_at_once, phase.video_tokens
        video = rows * (4 * tokens + 2) * WIDTH // 2
        audio = rows * (2 * tokens * WIDTH // 2 // 2 + AUDIO * WIDTH // 2)
        text = phase.contexts * 2 * TEXT * (WIDTH + WIDTH // 2)
        expected += (video + audio + text) * ITEM
    with_it, without = (stage_work(MODEL, work, METER, layouts, each) for each in (True, False))
    for one, other in zip(with_it, without, strict=True):
        assert one.activations - other.activations == pytest.approx(expected, abs=100_000)


def test_each_layout_is_metered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And plans for other numbers of steps are made from what is known."""
    metered: list[Layout] = []
    made: list[str] = []
    meter, plan = TransformerMeter._metered, Costs._make_plan

    def counted(self: TransformerMeter, phase: PhaseLoad, layout: Layout, rank: int) -> LoopWork:
        metered.append(layout)
        return meter(self, phase, layout, rank)

    def noted(self: Costs, name: str, *how: Any) -> Plan:
        made.append(name)
        return plan(self, name, *how)

    monkeypatch.setattr(TransformerMeter, "_metered", counted)
    monkeypatch.setattr(Costs, "_make_plan", noted)
    planner = Planner(MODEL, group("h200", 4))
    for steps in (30, 20):
        work = load(steps=steps)
        phases = weight_phases("two-stage", work, MODEL)
        planner.decide(work, phases, {}, Residency(AUTO))
        assert sorted(metered, key=str) == [Layout(n, 4 // n) for n in (1, 1, 2, 2, 4, 4)]
        assert (made != []) == (steps == 30)
        made.clear()


def test_what_is_not_shared_out_costs_what_it_does_alone() -> None:
    """Stage 2 has one pass: where only passes are shared, every rank makes it."""
    stage2 = load().phases[1]
    alone, each = METER.loop(stage2), METER.loop(stage2, Layout(2, 1))
    assert (each.flops, each.block_calls) == (alone.flops, alone.block_calls)


def test_layouts_follow_the_link() -> None:
    """Over NVLink tokens are shared; over a slow link passes, which exchange almost nothing."""
    nvlink, hd = group("h100-80gb", 2), load(1024, 1536)
    assert costs_of(nvlink, hd).layouts == (Layout(1, 2), Layout(1, 2))
    slow = replace(nvlink, peers=PeerLink(1e9, 1e-4, 1e9, direct=False))
    assert costs_of(slow, hd).layouts[0] == Layout(2, 1)
    assert costs_of(nvlink.alone(), hd).layouts == (ONE_RANK, ONE_RANK)


def test_what_the_host_launches_too_slowly_is_shared_out_by_passes() -> None:
    """Exchanges through the host are not captured, and a small video has short blocks."""
    nvlink = group("h200", 2)
    assert nvlink.peers is not None
    through_host = replace(nvlink, peers=replace(nvlink.peers, direct=False))
    for hardware, layout, graphs in (
        (nvlink, Layout(1, 2), [True, True]),
        (through_host, Layout(2, 1), [True, False]),
    ):
        c = costs_of(hardware, load())
        assert c.layouts[0] == layout
        assert [s.from_graphs for s, _ in c.stages if s.phase is not None] == graphs


def test_text_and_tiles_are_shared_out_too() -> None:
    """Two prompts, by a device each; a large picture's tiles, in turns."""
    alone, together = (costs_of(group("h200", n), load(1024, 1536)) for n in (1, 2))

    def seconds(c: Costs, name: str) -> list[float]:
        return [seconds for stage, seconds in c.stages if stage.name.startswith(name)]

    assert len(seconds(alone, "encode text")) == 2 * len(seconds(together, "encode text"))
    decoding = sum(seconds(alone, "decode")), sum(seconds(together, "decode"))
    assert 0.5 <= decoding[1] / decoding[0] < 0.6


@pytest.mark.slow
def test_settings_say_what_is_shared() -> None:
    def shared(parallel: str) -> tuple[Layout, ...]:
        return share_out(load(), METER, group("h200", 4), Calibration(), parallel)  # type: ignore[arg-type]

    assert shared("guidance") == (Layout(4, 1),) * 2
    assert shared("sequence") == (Layout(1, 4),) * 2
    assert shared("off") == (ONE_RANK, ONE_RANK)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h200", "h100-80gb", "a100-80gb"])
def test_more_devices_take_less_time_and_exchange_is_part_of_it(name: str) -> None:
    before = costs_of(group(name, 1), load(1024, 1536)).computing
    for devices in (2, 4, 8):
        c = costs_of(group(name, devices), load(1024, 1536))
        assert c.computing < before
        before = c.computing
        for (stage, seconds), exchanging in zip(c.stages, c.exchanging, strict=True):
            assert 0 <= exchanging <= seconds
            assert (exchanging > 0) == (stage.phase is not None)


def test_a_slow_link_says_that_one_device_is_as_good() -> None:
    wanted = Residency(AUTO)
    work = load()
    useless = replace(group("h200", 2), peers=PeerLink(1e6, 1.0, 1e6, direct=False))

    def plan(hardware: Hardware):  # type: ignore[no-untyped-def]
        return decide(costs_of(hardware, work), wanted, limits_of(hardware, wanted))

    gain = compare(plan(useless), useless, work, plan)
    assert not gain.pays
    assert "one GPU is as good" in gain.words
    nvlink = group("h200", 2)
    gain = compare(plan(nvlink), nvlink, work, plan)
    assert gain.pays
    assert gain.times_as_fast is not None
    assert 1.4 < gain.times_as_fast < 2


def test_devices_of_a_group_that_was_probed_alone() -> None:
    """Each has its memory, and the link of its card; CPUs have their host's memory together."""
    alone = replace(card("h200", 256 * GIB), name="NVIDIA H200")
    together = with_devices(alone, 2)
    assert together.peers == card("h200", 256 * GIB, 2).peers
    assert together.device_memory == alone.device_memory
    assert with_devices(together, 2) is together
    cpus = with_devices(replace(alone, unified=True), 4)
    assert (cpus.devices, cpus.device_memory) == (4, alone.device_memory // 4)


def test_blocks_among_the_devices_of_a_group() -> None:
    """Two cards that are too small for both weight sets hold half of each."""
    hardware, work = group("h100-80gb", 2), load()
    wanted = Residency("resident", places={"transformer": "peer"})
    c, limits = costs_of(hardware, work), limits_of(hardware, wanted)
    named = decide(c, wanted, limits).chosen.prediction
    whole = decide(c, Residency("resident"), limits, strict=False).chosen.prediction
    both_sets = 2 * sum(MODEL.units["transformer"][:-1])
    saved = whole.peak_device_bytes - named.peak_device_bytes
    slots = 3 * max(MODEL.units["transformer"][:-1])
    assert both_sets / 2 - slots <= saved <= both_sets / 2
    assert named.for_peers_bytes + named.at_peers_bytes == both_sets
    assert whole.for_peers_bytes == whole.at_peers_bytes == 0
    assert 1 < named.latency_s / whole.latency_s < 1.03
    auto = Residency(AUTO)
    chosen = decide(c, auto, limits)
    assert chosen.residency.places["transformer"] == "peer"
    assert chosen.residency.resident_blocks is None
