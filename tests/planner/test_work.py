"""What stages are said to take is what a whole run takes, made on the meta device."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from benchmarks.published_figures import published_source
from torch import nn

from entracte import (
    ControlVideo,
    ExtendedVideo,
    ImageCondition,
    LoraSpec,
    Request,
    SoundCondition,
    SourceVideo,
)
from entracte.checkpoints.loading import build_component
from entracte.models.registry import LTX_2_3
from entracte.models.transformer import TransformerConfig
from entracte.pipeline.latents import decode_audio
from entracte.planner.meta_ops import META
from entracte.planner.meter import meter
from entracte.planner.model_profile import ModelFigures, published
from entracte.planner.stage_laws import mel_frames
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.work import stage_work
from entracte.planner.workload import Workload
from entracte.recipes import Guidance
from entracte.synthetic import demo_config

from .meta_run import WIDE, counted_batches, figures, modules, prepared, run

# Traced by a run, and not planned: they compute nothing to speak of.
LEFT_OUT = ("prepare inputs", "load weights", "prepare latents", "switch to", "mux")

LOOPS = ("denoise", "refine")


@dataclass(frozen=True)
class Model:
    modules: dict[str, nn.Module]
    figures: ModelFigures

    @property
    def layers(self) -> int:
        return self.figures.transformer.layers


@dataclass(frozen=True)
class Case:
    """A request: its sizes, the frames of its images, and its guidance where not the default."""

    sizes: dict[str, Any]
    images: tuple[int, ...] = ()
    guidance: Guidance | None = None
    slow: bool = field(default=False, kw_only=True)


def of_size(height: int, width: int, frames: int, batch: int = 1, **more: Any) -> dict[str, Any]:
    sizes = {"height": height, "width": width, "num_frames": frames, "guidance_batch": batch}
    fixed = more.get("pipeline", "").startswith(("distilled", "retake", "extend", "ic-lora"))
    steps = {} if fixed and more["pipeline"] != "retake-guided" else {"num_inference_steps": 2}
    return {**sizes, **steps, **more}


CASES = {
    "one by one": Case(of_size(256, 384, 49)),
    "in twos": Case(of_size(256, 384, 49, 2), slow=True),
    "in threes": Case(of_size(256, 384, 49, 3), slow=True),
    "at once": Case(of_size(512, 768, 121, 4)),
    "first image": Case(of_size(512, 768, 121, 2), (0,), slow=True),
    "tiles": Case(of_size(1024, 1536, 121), (0, 40)),
    "long": Case(of_size(1024, 1536, 257, pipeline="distilled"), (0, 40), slow=True),
    "only prompts": Case(
        of_size(320, 320, 9, 2, pipeline="one-stage"), (8,), Guidance(cfg=3.0, rescale=0.7)
    ),
    "skipping": Case(of_size(320, 640, 97, 2, pipeline="one-stage"), (), Guidance(stg=1.0)),
    "hq": Case(of_size(256, 384, 49, 3, pipeline="hq"), (0, 40)),
    "keyframes": Case(of_size(256, 384, 49, pipeline="keyframes"), (0, 40), slow=True),
    "short": Case(of_size(256, 384, 49, pipeline="distilled-one-stage"), slow=True),
    "sound": Case(of_size(256, 384, 49, pipeline="audio-to-video"), (0,)),
    "retake": Case(of_size(256, 384, 49, pipeline="retake")),
    "retake, guided": Case(of_size(256, 384, 49, pipeline="retake-guided"), slow=True),
    "longer": Case(of_size(256, 384, 97, pipeline="extend"), slow=True),
    "retake, in tiles": Case(of_size(256, 1024, 97, pipeline="retake"), slow=True),
    "control": Case(of_size(256, 384, 49, pipeline="ic-lora"), (0, 40)),
    "masked control": Case(of_size(256, 384, 49, pipeline="ic-lora-one-stage"), slow=True),
    "unguided": Case(of_size(320, 640, 97, pipeline="one-stage"), (), Guidance()),
}


# What is run on a wider transformer too.
ALSO_WIDE = ("at once", "tiles", "skipping")


@pytest.fixture(scope="module")
def demo() -> Model:
    found = modules(demo_config.TRANSFORMER)
    return Model(found, figures(found))


@pytest.fixture(scope="module")
def wide() -> Model:
    found = modules(WIDE)
    return Model(found, figures(found))


def compare(model: Model, case: Case) -> None:
    images = tuple(ImageCondition("any", frame=at) for at in case.images)
    guidance = {"video_guidance": case.guidance, "audio_guidance": case.guidance}
    given: dict[str, Any] = {"images": images}
    match case.sizes.get("pipeline"):
        case "audio-to-video":
            given["sound"] = SoundCondition("any")
        case "retake" | "retake-guided":
            given["source"] = SourceVideo("any", 0, 1)
        case "extend":
            given["extended"] = ExtendedVideo("any", 1)
        case "ic-lora" | "ic-lora-one-stage" as pipeline:
            attention = 1.0 if pipeline == "ic-lora" else 0.5
            given["controls"] = [ControlVideo("any"), ControlVideo("other", attention=attention)]
            given["loras"] = (LoraSpec("any"),)
    request = Request(prompt="any", **given, **guidance, **case.sizes)
    ready = prepared(request, model.layers)
    with counted_batches(model.modules["transformer"]) as batches:
        took = [each for each in run(model.modules, ready) if not each[0].startswith(LEFT_OUT)]
    load = Workload.of(ready.resolved, len(ready.prompts))
    said = stage_work(model.figures, load, TransformerMeter.of(model.figures))

    assert [stage.name for stage in said] == [name for name, _ in took]
    assert sum(stage.block_calls for stage in said) == sum(batches)
    assert [s.phase for s in said if s.phase is not None] == list(range(len(request.recipe.phases)))
    for stage, (name, true) in zip(said, took, strict=True):
        close = 0.01 if name in LOOPS else 0.05
        assert stage.flops == pytest.approx(true.flops, rel=close), name
        assert 0.97 * true.nbytes <= stage.activations <= 1.05 * true.nbytes, name


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if case.slow else []) for n, case in CASES.items()],
)
def test_every_stage_takes_what_it_takes_in_a_run(demo: Model, name: str) -> None:
    compare(demo, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "skipping" else pytest.mark.slow) for n in ALSO_WIDE]
)
def test_so_does_every_stage_of_a_wider_model(wide: Model, name: str) -> None:
    compare(wide, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_so_does_the_published_model(batch: int) -> None:
    found = {}
    for name, component in published_source().components.items():
        module = build_component(component, LTX_2_3).requires_grad_(False)
        found[name] = module.to(LTX_2_3.dtype_of(name, torch.bfloat16))
    compare(Model(found, published("ltx-2.3")), Case(of_size(512, 768, 121, batch), (0,)))


@pytest.mark.parametrize(("height", "width", "measured"), [(512, 768, 0.43), (1024, 1536, 1.49)])
def test_a_guided_step_takes_what_was_measured(height: int, width: int, measured: float) -> None:
    """Gigabytes of four passes at once on an H200, by docs/reference/measurements.md."""
    transformer = TransformerMeter.of(published("ltx-2.3"))
    load = Workload.of_sizes(layers=48, height=height, width=width, guidance_batch=4)
    guided = load.phases[0]
    assert (guided.video_tokens, guided.audio_tokens) == (height * width // 256, 126)
    assert transformer.loop(guided).nbytes / 1e9 == pytest.approx(measured, rel=0.05)


def test_loops_are_metered_alike_in_inference_mode() -> None:
    config = TransformerConfig.from_header(demo_config.TRANSFORMER)
    phase = Workload.of_sizes(layers=config.layers, height=256, width=384).phases[0]
    outside = TransformerMeter(config, torch.bfloat16).loop(phase)
    with torch.inference_mode():
        assert TransformerMeter(config, torch.bfloat16).loop(phase) == outside


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device=META)


class TestLaws:
    """They hold at other sizes than those that were traced."""

    @pytest.mark.parametrize("frames", [1, 3, 7, 16])
    @pytest.mark.parametrize(("height", "width"), [(5, 9), (24, 24)])
    def test_of_decoding(self, demo: Model, frames: int, height: int, width: int) -> None:
        vae = demo.modules["video_vae"]
        true = meter(lambda: vae.decode(empty(1, 128, frames, height, width)))
        law, places = demo.figures.costs.decode_frames, height * width
        assert places * law.flops_of(frames) == pytest.approx(true.flops, rel=0.01)
        assert places * law.nbytes_of(frames) == pytest.approx(true.nbytes, rel=0.05)

    @pytest.mark.parametrize(("height", "width"), [(4, 6), (34, 60)])
    def test_of_encoding(self, demo: Model, height: int, width: int) -> None:
        vae = demo.modules["video_vae"]
        true = meter(lambda: vae.encode(empty(1, 3, 1, 32 * height, 32 * width)))
        law = demo.figures.costs.encode_image
        assert law.flops_of(height * width) == pytest.approx(true.flops, rel=0.01)
        assert law.nbytes_of(height * width) == pytest.approx(true.nbytes, rel=0.05)

    @pytest.mark.parametrize("tokens", [13, 126, 500])
    def test_of_sound(self, demo: Model, tokens: int) -> None:
        vae, vocoder = demo.modules["audio_vae"], demo.modules["vocoder"]
        true = meter(lambda: decode_audio(vae, vocoder, empty(1, 8, tokens, 16)))
        law, frames = demo.figures.costs.decode_audio, mel_frames(tokens)
        assert law.flops_of(frames) == pytest.approx(true.flops, rel=0.05)
        assert law.nbytes_of(frames) == pytest.approx(true.nbytes, rel=0.05)


class TestWorkload:
    @pytest.mark.parametrize("pipeline", ["two-stage", "one-stage", "distilled"])
    @pytest.mark.parametrize("images", [(), (0,), (0, 16, 24)])
    def test_sizes_alone_say_the_same(self, pipeline: str, images: tuple[int, ...]) -> None:
        sizes = {"height": 512, "width": 768, "num_frames": 97, "guidance_batch": 2}
        shown = tuple(ImageCondition("any", frame=at) for at in images)
        ready = prepared(Request(prompt="any", pipeline=pipeline, images=shown, **sizes), 48)
        assert Workload.of_sizes(
            layers=48, pipeline=pipeline, images=len(images), **sizes
        ) == Workload.of(ready.resolved, len(ready.prompts))

    def test_a_skipping_pass_counts_from_its_first_skipped_block(self) -> None:
        load = Workload.of_sizes(layers=48)
        guided, refined = load.phases
        assert guided.passes == pytest.approx(3 + 20 / 48)
        assert (len(guided.guidance.passes()), guided.evaluations) == (4, 30)
        assert (refined.passes, len(refined.guidance.passes()), refined.evaluations) == (1, 1, 3)
        assert (guided.steps, refined.steps) == (30, 3)
        assert (guided.contexts, refined.contexts, load.new_prompts) == (2, 1, 2)
        assert (guided.video_tokens, refined.video_tokens) == (6144, 24576)

    def test_cached_prompts_are_not_encoded(self) -> None:
        model, load = published("ltx-2.3"), Workload.of_sizes(layers=48, prompts=0)
        transformer = TransformerMeter.of(model)
        names = [stage.name for stage in stage_work(model, load, transformer)]
        assert names == ["denoise", "upsample", "refine", "decode audio", "decode video"]
        again = stage_work(model, replace(load, new_prompts=2), transformer)
        assert [s.name for s in again[:4]] == ["encode text", "connect text"] * 2
        assert again[4:] == stage_work(model, load, transformer)
