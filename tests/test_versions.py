"""A further version of the model is one more entry in the registry."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from entracte import Engine, Guidance, ImageCondition, Request, Residency
from entracte.binding import bind
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.models.registry import LTX_2_3, VERSIONS
from entracte.pipeline.resolve import resolve
from entracte.planner.model_profile import DISTILLED, figures_of
from entracte.planner.workload import Workload, recipe_weights
from entracte.residency import Adapter
from entracte.residency.simulated import SimulatedAccelerator
from entracte.synthetic.demo import CHECKPOINT
from entracte.versions import DEFAULTS, RecipeDefaults

from .planner.test_engine_planner import SLOW

# What its requests leave open is small, so that it is made at once.
GIVEN = {
    "height": 128,
    "width": 64,
    "num_frames": 9,
    "frame_rate": 8.0,
    "num_inference_steps": 2,
    "seed": 5,
    "negative_prompt": "fog",
    "video_guidance": Guidance(cfg=2.0),
    "audio_guidance": Guidance(cfg=2.5, rescale=0.5),
}
OF_RECIPE = {field.name for field in fields(RecipeDefaults)}
SMALL = replace(
    LTX_2_3.defaults,
    recipes={
        name: RecipeDefaults(**{field: GIVEN[field] for field in OF_RECIPE})
        for name in LTX_2_3.defaults.recipes
    },
    stg_depth=0.25,
    image_crf=20,
    **{name: value for name, value in GIVEN.items() if name not in OF_RECIPE},
)
LTX_2_9 = replace(LTX_2_3, name="2.9", defaults=SMALL)


def test_every_version_has_its_defaults() -> None:
    assert VERSIONS.keys() == DEFAULTS.keys()
    for name, version in VERSIONS.items():
        assert version.name == name
        assert version.defaults is DEFAULTS[name]


@pytest.fixture(scope="module")
def folder(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model, whose checkpoint says that it is another version's."""
    folder = tmp_path_factory.mktemp("another version")
    for path in demo_model.iterdir():
        if path.name != CHECKPOINT:
            (folder / path.name).symlink_to(path)
    with safe_open(demo_model / CHECKPOINT, "pt") as file:
        metadata = file.metadata() | {"model_version": "2.9.1"}
    save_file(load_file(demo_model / CHECKPOINT), folder / CHECKPOINT, metadata)
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Iterator[ModelSource]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("entracte.checkpoints.versions.DEFAULTS", {**DEFAULTS, "2.9": SMALL})
        patch.setattr("entracte.checkpoints.published.VERSIONS", {**VERSIONS, "2.9": LTX_2_9})
        yield open_model(str(folder), ModelPaths(), distilled=False)


@pytest.fixture(scope="module")
def engine(source: ModelSource) -> Iterator[Engine]:
    backend = SimulatedAccelerator()
    with Engine(source, backend, torch.bfloat16, Residency("auto"), SLOW) as opened:
        yield opened


def test_it_is_refused_by_name_until_it_is_registered(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is LTX-2\.9; this release runs LTX-2\.0, LTX-2\.3"):
        open_model(str(folder), ModelPaths(), distilled=False)


@pytest.mark.slow
def test_its_defaults_are_what_is_made(engine: Engine) -> None:
    result = engine.generate(Request("A quiet street"))
    settled = GIVEN | {
        stream: replace(GIVEN[stream], stg_blocks=(1,))
        for stream in ("video_guidance", "audio_guidance")
    }
    assert {name: value for name, value in result.request if name in settled} == settled
    assert result.frames.shape == (9, 128, 64, 3)
    assert result.trace.counts["forwards"] == 2 * 2 + 3

    again = engine.generate(result.request)
    assert again.request == result.request
    for name, latent in result.latents.items():
        assert torch.equal(again.latents[name], latent)


@pytest.mark.slow
def test_its_defaults_are_planned_and_predicted(engine: Engine) -> None:
    open_request, given = Request("A quiet street"), Request("A quiet street", **GIVEN)
    assert engine.plan(open_request) == engine.plan(given)
    engine.load(open_request)
    predicted, expected = engine.predict(open_request), engine.predict(given)
    longer = engine.predict(Request("A quiet street", num_frames=17))
    assert predicted.latency_s == expected.latency_s < longer.latency_s


@pytest.mark.slow
def test_its_sizes_are_counted_by_its_defaults(source: ModelSource) -> None:
    figures = figures_of(source, torch.bfloat16)
    assert figures.version is LTX_2_9
    layers = figures.transformer.layers
    load = Workload.of_sizes(layers=layers, defaults=figures.version.defaults)
    assert (load.frames, load.height, load.width) == (9, 128, 64)
    assert [phase.steps for phase in load.phases] == [2, 3]
    assert [phase.contexts for phase in load.phases] == [2, 1]


def test_what_contradicts_its_defaults_is_refused_before_anything_is_read(engine: Engine) -> None:
    late = Request("a", images=(ImageCondition("gone.png", frame=9),))
    for ask in (engine.generate, engine.plan, engine.load, engine.predict):
        with pytest.raises(RequestError, match="frame 9 is outside the video, .* 0 to 8"):
            ask(late)
    assert bind(late, LTX_2_3.defaults).num_frames == 121


def test_images_are_compressed_as_it_says() -> None:
    request = Request("a", images=(ImageCondition("gone.png"), ImageCondition("b.png", 8, crf=0)))
    resolved = resolve(request, SMALL, 4, recipe_weights(request.recipe))
    assert [image.crf for image in resolved.request.images] == [20, 0]
    assert resolved.appended_images == (8,)


def leaves(value: object) -> Iterator[object]:
    """What a value is made of, down to what has no fields, entries or keys."""
    if is_dataclass(value):
        yield from leaves([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, BaseModel):
        yield from leaves(list(dict(value).values()))
    elif isinstance(value, Mapping):
        yield from leaves(list(value.values()))
    elif isinstance(value, list | tuple | frozenset):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_what_can_be_counted_has_no_tensors() -> None:
    request = Request("a", images=(ImageCondition("gone.png"),))
    resolved = resolve(request, SMALL, 4, recipe_weights(request.recipe))
    kinds = {type(leaf) for leaf in leaves(resolved)}
    assert kinds <= {int, float, bool, str, type(None), type(Path())}
    assert [len(phase.sigmas) for phase in resolved.phases] == [3, 4]
    assert [phase.evaluations for phase in resolved.phases] == [2, 3]
    assert [phase.weights.adapters for phase in resolved.phases] == [
        (),
        (Adapter(DISTILLED, 1.0),),
    ]
    assert resolved.prompts == 2
