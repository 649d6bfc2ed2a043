"""The engine in mode auto: planned for what comes, and for what goes wrong."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import entracte.pipeline.decoding
from entracte import Engine, Guidance, LoraSpec, Request, Residency
from entracte.errors import BudgetError, OutOfMemory
from entracte.machine.hardware import Hardware, Rates
from entracte.planner.decision import Decision
from entracte.residency import SLOTS
from entracte.residency.simulated import SimulatedAccelerator
from entracte.result import Result

# So slow that what the tiny model brings and merges takes its time.
SLOW = Hardware(
    "slow",
    10**11,
    10**11,
    Rates(matmul=1e10, merge=1e9, device_copy=1e9, h2d=1e8, d2h=1e8, pageable=1e7, disk=1e7),
)


def small(**values: object) -> Request:
    size = {"height": 128, "width": 128, "num_frames": 9, "num_inference_steps": 1}
    unguided = {"video_guidance": Guidance(), "audio_guidance": Guidance()}
    return Request(**({"prompt": "A quiet street"} | size | unguided | values))


def open_engine(model: Path, limit: int | None = None, **residency: object) -> Engine:
    return Engine.open(
        model,
        residency=Residency("auto", device_memory=limit, **residency),
        backend=SimulatedAccelerator(device_limit=limit),
        hardware=SLOW,
    )


def latents(engine: Engine, **values: object) -> dict[str, Tensor]:
    return engine.generate(small(**values), keep_frames=False).latents


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def expected(demo_model: Path) -> dict[str, Tensor]:
    with Engine.open(demo_model, residency=Residency("resident")) as engine:
        return latents(engine)


@pytest.fixture(scope="module")
def opened(demo_model: Path) -> Iterator[Engine]:
    with open_engine(demo_model) as engine:
        yield engine


@pytest.fixture
def engine(opened: Engine) -> Iterator[Engine]:
    """With memory for all. It has one planner; what a test wishes ends with it."""
    yield opened
    opened.configure(Residency("auto"))


@pytest.fixture(scope="module")
def plenty(opened: Engine) -> Decision:
    return opened.plan(small())


@pytest.mark.slow
def test_with_memory_for_all_nothing_is_brought(
    engine: Engine, expected: dict[str, Tensor], plenty: Decision
) -> None:
    assert plenty.residency.mode == "resident"
    assert set(plenty.residency.places.values()) == {"resident"}
    assert same(latents(engine), expected)
    result = engine.generate(small(), keep_frames=False)
    assert result.decision is not None
    assert result.decision.chosen.prediction.way.mode == "resident"
    assert result.trace.counts["weights_bytes_in"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.85, 0.72])
def test_smaller_devices_get_the_same_video(
    demo_model: Path, expected: dict[str, Tensor], plenty: Decision, share: float
) -> None:
    limit = int(plenty.chosen.prediction.peak_device_bytes * share)
    engine = open_engine(demo_model, limit)
    assert same(latents(engine), expected)
    decision = engine.generate(small(), keep_frames=False).decision
    assert decision is not None
    assert decision.chosen.prediction.peak_device_bytes <= limit


@pytest.mark.slow
def test_every_stage_of_a_run_is_predicted(engine: Engine) -> None:
    engine.forget_prompts()
    result = engine.generate(small(), keep_frames=False)
    assert result.decision is not None
    predicted = {stage.name for stage in result.decision.chosen.prediction.stages}
    unplanned = {"validate", "prepare inputs", "load weights", "mux"}
    traced = {span.name for span in result.trace.spans}
    assert predicted == {
        name
        for name in traced
        if name not in unplanned and not name.startswith(("prepare latents", "switch to"))
    }


@pytest.mark.slow
def test_a_warm_engine_finds_room_for_an_unseen_prompt(demo_model: Path, plenty: Decision) -> None:
    """Where both transformers and the text encoder do not fit beside each other."""
    whole = plenty.chosen.prediction
    text = max(stage.weights["text_encoder"] for stage in whole.stages)
    engine = open_engine(demo_model, whole.peak_device_bytes - text // 2)
    latents(engine)
    warm = engine.generate(small(seed=2), keep_frames=False).trace.counts
    assert "text_encodings" not in warm
    unseen = engine.generate(
        small(prompt="Another street, much longer " * 20), keep_frames=False
    ).trace.counts
    assert unseen["text_encodings"] == 1
    encoders = sum(
        max(stage.weights[name] for stage in whole.stages)
        for name in ("text_encoder", "connectors")
    )
    assert unseen["weights_bytes_in"] <= warm["weights_bytes_in"] + 1.1 * encoders


@pytest.mark.slow
def test_loras_of_connectors_are_counted(
    demo_model: Path, tmp_path: Path, plenty: Decision
) -> None:
    engine = open_engine(demo_model)
    connectors = engine.source.components["connectors"].tensors
    name = next(each for each in connectors if each.endswith("attn1.to_v.weight"))
    rows, columns = connectors[name].info.shape
    down, up = torch.zeros(64, columns), torch.zeros(rows, 64)
    module, path = name.removesuffix(".weight"), tmp_path / "lora.safetensors"
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, path)

    def taken(decision: Decision) -> int:
        stages = {stage.name: stage for stage in decision.chosen.prediction.stages}
        return stages["connect text"].weights["connectors"]

    with_lora = engine.plan(small(loras=(LoraSpec(path),)))
    assert taken(with_lora) - taken(plenty) == SLOTS * (down.nbytes + up.nbytes)


@pytest.mark.slow
def test_a_larger_request_is_planned_for(demo_model: Path, plenty: Decision) -> None:
    limit = plenty.chosen.prediction.peak_device_bytes
    engine = open_engine(demo_model, limit)
    first = engine.generate(small(), keep_frames=False).decision
    larger = engine.generate(small(width=192), keep_frames=False).decision
    assert first is not None
    assert larger is not None
    assert larger.residency != first.residency
    assert larger.chosen.prediction.peak_device_bytes <= limit


@pytest.mark.slow
def test_other_wishes_are_heeded_at_once(engine: Engine) -> None:
    """Though the plan in place would do."""
    latents(engine)
    engine.configure(Residency("auto", places={"vocoder": "snapshot"}))
    decision = engine.generate(small(), keep_frames=False).decision
    assert decision is not None
    assert decision.residency.places["vocoder"] == "snapshot"


@pytest.mark.slow
def test_refused_memory_leads_to_the_next_cheaper_plan(
    demo_model: Path, expected: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(demo_model)
    before = engine.plan(small()).chosen.prediction
    assert isinstance(engine.backend, SimulatedAccelerator)
    engine.backend.fail("allocate", after=5)
    with caplog.at_level(logging.WARNING, "entracte"):
        result = engine.generate(small(), keep_frames=False)
    assert same(result.latents, expected)
    assert any("ran out of memory" in record.message for record in caplog.records)
    assert result.decision is not None
    assert result.decision.chosen.prediction.peak_device_bytes < before.peak_device_bytes
    again = engine.generate(small(), keep_frames=False).decision
    assert again is not None
    assert again.residency == result.decision.residency  # it is remembered


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets decoding run out of memory so many times."""
    left = [0]
    decode = entracte.pipeline.decoding.decode_video

    def failing(*arguments: object, **named: object) -> object:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*arguments, **named)

    def refuse(times: int) -> None:
        left[0] = times

    monkeypatch.setattr(entracte.pipeline.decoding, "decode_video", failing)
    return refuse


@pytest.mark.slow
def test_a_stage_that_runs_out_of_memory_is_tried_once_more(
    demo_model: Path,
    expected: dict[str, Tensor],
    refusals: Callable[[int], None],
    tmp_path: Path,
) -> None:
    engine = open_engine(demo_model)
    refusals(1)
    result = engine.generate(small(), output_path=tmp_path / "out.mp4")
    assert same(result.latents, expected)
    assert (tmp_path / "out.mp4").stat().st_size > 1000
    refusals(2)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        latents(engine)
    assert same(latents(engine), expected)


@pytest.mark.slow
def test_named_modes_are_not_changed(engine: Engine, refusals: Callable[[int], None]) -> None:
    engine.configure(Residency("fused"))
    refusals(1)
    with pytest.raises(OutOfMemory):
        latents(engine)
    assert engine.generate(small(), keep_frames=False).decision is None


@pytest.mark.slow
def test_what_fits_nowhere_is_refused_before_anything_is_read(demo_model: Path) -> None:
    engine = open_engine(demo_model, 1_000_000)
    with pytest.raises(BudgetError, match=r"no plan fits\. The smallest plan, Residency"):
        latents(engine)
    assert engine.residency() == []


class Scripted(Engine):
    """Makes videos whose stages took as long as a script says, whatever the machine was doing.

    script: seconds by stage.
    """

    script: Mapping[str, float] = MappingProxyType({})

    def generate(self, request: Request, **options: Any) -> Result:
        result = super().generate(request, **options)
        for span in result.trace.spans:
            span.seconds = self.script.get(span.name, span.seconds)
        return result


@pytest.mark.slow
def test_a_warm_up_corrects_predictions(demo_model: Path) -> None:
    engine = Scripted.open(demo_model, backend=SimulatedAccelerator(), hardware=SLOW)
    before = engine.plan(small()).chosen.prediction
    # Three times the computing that was predicted, and the waiting for weights as predicted.
    engine.script = {s.name: 3 * s.seconds - 2 * s.stall_s for s in before.stages}
    result = engine.warm_up(small())
    after = {stage.name: stage for stage in engine.plan(small()).chosen.prediction.stages}
    made = {span.name for span in result.trace.spans}
    for stage in before.stages:
        computing = after[stage.name].seconds - after[stage.name].stall_s
        # Both prompts are known by then, so they are not encoded again.
        factor = 3 if stage.name in made else 1
        assert computing == pytest.approx(factor * (stage.seconds - stage.stall_s)), stage.name
    assert {"denoise", "refine", "upsample", "decode video", "decode audio"} <= made


@pytest.mark.slow
def test_planning_waits_for_no_weights(demo_model: Path) -> None:
    engine = Engine.open(demo_model)
    decision = engine.plan(small())
    assert decision.chosen.reason
    assert engine.residency() == []


@pytest.mark.slow
def test_asking_for_a_plan_changes_nothing(demo_model: Path, plenty: Decision) -> None:
    """A larger request that is only asked about leaves the plan in place."""
    engine = open_engine(demo_model, plenty.chosen.prediction.peak_device_bytes)
    first = engine.generate(small(), keep_frames=False).decision
    asked = engine.plan(small(width=192))
    again = engine.generate(small(), keep_frames=False).decision
    assert first is not None
    assert again is not None
    assert asked.residency != first.residency
    assert again.residency == first.residency
