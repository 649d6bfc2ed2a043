"""Traces of real generations: they close, and faults are seen where they are."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from entracte import Engine, Guidance, Request, Residency
from entracte.residency import Row
from entracte.residency.backends.host import HostBackend, HostStream
from entracte.residency.backends.protocol import Direction
from entracte.residency.simulated import SimulatedAccelerator
from entracte.trace.dump import STATES, Dump
from entracte.trace.trace import Trace, TraceOptions
from entracte.trace.write_dump import perf_dump

MODES = [
    Residency("resident"),
    Residency("fused"),
    Residency("fused", resident_blocks=1, merged_blocks=1),
    Residency("fused", places={"transformer": "disk", "text_encoder": "streamed"}),
    Residency("snapshot"),
    Residency("snapshot", resident_blocks=2),
    Residency("snapshot", "aggressive"),
    Residency("original"),
    Residency("dynamic"),
]
BLOCKS = TraceOptions("blocks")
DEVICE, MERGED = STATES.index("device"), STATES.index("merged")


def small(**values: object) -> Request:
    size = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}
    unguided = {"video_guidance": Guidance(), "audio_guidance": Guidance()}
    return Request(**({"prompt": "A quiet street"} | size | unguided | values))


@pytest.fixture(scope="module")
def opened(demo_model: Path) -> Iterator[Engine]:
    with Engine.open(demo_model, device="cpu", residency=Residency("resident")) as engine:
        yield engine


@pytest.fixture(scope="module")
def held(opened: Engine) -> list[Row]:
    """All weights on the device, and merged."""
    opened.generate(small(), keep_frames=False)
    return opened.residency()


@pytest.fixture
def engine(opened: Engine, held: list[Row]) -> Engine:
    opened.configure(Residency("resident"))
    if opened.residency() != held:
        opened.generate(small(), keep_frames=False)
    return opened


def stage(trace: Trace, name: str) -> int:
    return [span.name for span in trace.spans].index(name)


def with_slow(*modes: Residency) -> list[Any]:
    """The first two, and the others in the slow suite."""
    rest = [pytest.param(mode, marks=pytest.mark.slow) for mode in modes[2:]]
    return [*modes[:2], *rest]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("residency", with_slow(*MODES[1:], MODES[0]), ids=str)
def test_the_trace_closes_in_every_mode(engine: Engine, residency: Residency) -> None:
    engine.configure(residency)
    for _ in range(2):  # with all loading, and without
        trace = engine.generate(small(), keep_frames=False, trace=BLOCKS).trace
        dump = perf_dump(trace, {}).to_json()
        closure = dump["closure"]
        assert closure["parts_ms"] == pytest.approx(closure["end_to_end_ms"], rel=0.01)
        assert dump["total_duration_ms"] == pytest.approx(closure["end_to_end_ms"], abs=0.001)
        assert Dump.model_validate(dump).to_json() == dump


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("residency", with_slow(*MODES[2:5], MODES[0], MODES[7]), ids=str)
def test_parts_are_those_of_the_simulated_accelerator(
    demo_model: Path, residency: Residency
) -> None:
    """There modules take no time, so that all time is waiting, and no wait is counted twice."""
    accelerator = SimulatedAccelerator()
    with Engine.open(demo_model, residency=residency, backend=accelerator) as engine:
        for _ in range(2):
            trace = engine.generate(small(), keep_frames=False, trace=BLOCKS).trace
            parts = trace.parts()
            assert sum(part.compute for part in parts) == pytest.approx(0, abs=1e-6)
            assert sum(part.total for part in parts) == pytest.approx(trace.seconds, abs=1e-9)
        on_the_device = residency.mode in ("resident", "dynamic")
        assert (sum(part.stall for part in parts) == 0) == on_the_device


@pytest.mark.slow
def test_off_records_nothing(engine: Engine) -> None:
    trace = engine.generate(small(), keep_frames=False, trace=TraceOptions("off")).trace
    assert trace.record is None
    assert {part.total for part in trace.parts()} == {0}
    dump = perf_dump(trace, {}).to_json()
    assert not {"closure", "recording"} & dump.keys()
    assert dump["steps"]


@pytest.mark.slow
def test_blocks_are_recorded_where_they_are_asked_for(engine: Engine) -> None:
    for level, runs in (("stages", 0), ("blocks", 4 * (2 + 3))):
        trace = engine.generate(small(), keep_frames=False, trace=TraceOptions(level)).trace
        recording = perf_dump(trace, {}).recording
        assert recording is not None
        found = [each for each in recording.blocks if each.component == "transformer"]
        assert len(found) == runs


def test_the_swap_rolls_through_the_blocks(engine: Engine) -> None:
    engine.configure(Residency("snapshot"))
    engine.generate(small(), keep_frames=False)
    dump = perf_dump(engine.generate(small(), keep_frames=False).trace, {}).to_json()
    merged_at = []
    for changes in dump["recording"]["residency"]["blocks"]:
        assert [state for _, state in changes if state in (DEVICE, MERGED)] == [
            DEVICE,
            MERGED,
            DEVICE,
        ]
        merged_at.append(next(ms for ms, state in changes if state == MERGED))
    assert merged_at == sorted(merged_at)
    stages = {each["name"]: each for each in dump["recording"]["stages"]}
    denoise = stages["denoise"]
    assert denoise["start_ms"] < merged_at[0]
    assert merged_at[-1] < denoise["start_ms"] + denoise["duration_ms"]


@pytest.mark.slow
def test_memory_is_that_of_the_residency(engine: Engine) -> None:
    engine.configure(Residency("snapshot"))
    dump = perf_dump(engine.generate(small(), keep_frames=False).trace, {}).to_json()
    held: dict[tuple[str, str], int] = {}
    for row in engine.residency():
        key = row.component, row.where
        held[key] = held.get(key, 0) + row.nbytes
    lines = dump["recording"]["memory"]
    last = {
        (name, where): line[-1][1]
        for name, places in lines.items()
        for where, line in places.items()
        if line[-1][1]
    }
    assert last == held


# Faults, made on purpose


@pytest.mark.slow
def test_a_sleep_of_the_host_is_seen_in_its_stage(engine: Engine, tmp_path: Path) -> None:
    def dawdle(progress: object) -> None:
        if vars_of(progress) == ("refine", 2):
            time.sleep(0.2)

    def vars_of(progress: object) -> tuple[str, int]:
        return progress.stage, progress.step  # type: ignore[attr-defined]

    trace = engine.generate(small(), keep_frames=False, progress=dawdle).trace
    seconds = {span.name: span.seconds for span in trace.spans}
    steps = trace.spans[stage(trace, "refine")].steps
    assert seconds["refine"] > 0.2
    assert steps[2] > 0.2


class SlowCopies(HostStream):
    """Every copy takes a while, and everybody waits for it."""

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        time.sleep(0.03)
        super().copy(target, source, direction)


@pytest.mark.slow
def test_a_synchronous_copy_is_seen_as_a_wait_for_copies(demo_model: Path) -> None:
    backend = HostBackend()
    backend.copies = SlowCopies(backend.traffic)
    with Engine.open(demo_model, backend=backend, residency=Residency("snapshot")) as engine:
        engine.generate(small(), keep_frames=False)
        trace = engine.generate(small(), keep_frames=False).trace
    parts = trace.parts()
    # Four blocks are exchanged during the last step of each phase.
    assert parts[stage(trace, "denoise")].copy > 4 * 0.03
    assert parts[stage(trace, "refine")].copy > 4 * 0.03
    assert parts[stage(trace, "decode video")].copy == 0
    assert sum(part.merge for part in parts) == 0


@pytest.mark.slow
def test_an_extra_read_of_weights_is_seen_in_its_stage(engine: Engine) -> None:
    before = engine.generate(small(), keep_frames=False).trace
    assert before.record is not None
    assert before.record.transfers == []
    engine.configure(Residency("resident", places={"video_vae": "disk"}))
    engine.generate(small(), keep_frames=False)
    trace = engine.generate(small(), keep_frames=False).trace
    assert trace.record is not None
    read = {each.component for each in trace.record.transfers if each.what == "read"}
    assert read == {"video_vae"}
    parts = dict(zip((span.name for span in trace.spans), trace.parts(), strict=False))
    reading = {name for name, part in parts.items() if part.read > 0}
    assert "decode audio" in reading  # which borrows all that decodes
    assert reading <= {"decode audio", "upsample"}


@pytest.mark.slow
def test_ranges_are_entered_for_every_stage(engine: Engine) -> None:
    told: list[str] = []

    def noted(name: str) -> torch.profiler.record_function:
        told.append(name)
        return torch.profiler.record_function(name)

    trace = engine.generate(small(), keep_frames=False, trace=TraceOptions(range=noted)).trace
    assert told == [span.name for span in trace.spans]
