"""What a request leaves open takes a version's defaults, and only then is checked with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from entracte import Guidance, ImageCondition, LoraSpec, Request, binding
from entracte.binding import BoundRequest, bind, require_possible
from entracte.errors import RequestError
from entracte.planner.workload import EXAMPLES
from entracte.recipes import RECIPES, GuidanceOverrides, PipelineName
from entracte.versions import DEFAULTS_2_3

TWO_STAGE_2_3 = DEFAULTS_2_3.recipes["two-stage"]
SHORT = replace(DEFAULTS_2_3, num_frames=9, seed=3)


def asked(pipeline: PipelineName, **values: Any) -> Request:
    """A request of a pipeline, with what it needs."""
    recipe = RECIPES[pipeline]
    needed = () if recipe.needs is None else (EXAMPLES[recipe.needs],)
    images = values.pop("images", ())
    images = images if recipe.takes_images else ()
    if recipe.needs == "control":
        values["loras"] = (LoraSpec("b"),)
    return Request("a", pipeline=pipeline, conditions=(*needed, *images), **values)


def test_defaults_are_the_versions() -> None:
    two = bind(Request("a"), DEFAULTS_2_3)
    one = bind(Request("a", pipeline="one-stage"), DEFAULTS_2_3)
    assert (two.height, two.width, two.num_frames, two.frame_rate) == (1024, 1536, 121, 24.0)
    assert (one.height, one.width) == (512, 768)
    assert (two.num_inference_steps, two.seed) == (30, 10)
    assert two.video_guidance == Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7)
    assert two.audio_guidance.cfg == 7.0
    assert two.negative_prompt == one.negative_prompt != ""
    assert two.audio_tokens == round(121 / 24 * 25)
    hq = bind(Request("a", pipeline="hq"), DEFAULTS_2_3)
    assert (hq.height, hq.width, hq.num_inference_steps) == (1088, 1920, 15)
    assert hq.video_guidance == Guidance(cfg=3.0, modality=3.0, rescale=0.45)
    assert hq.audio_guidance == Guidance(cfg=7.0, modality=3.0, rescale=1.0)
    short = bind(Request("a"), SHORT)
    assert (short.num_frames, short.seed, short.height) == (9, 3, 1024)


@pytest.mark.parametrize("pipeline", get_args(PipelineName))
def test_nothing_that_matters_stays_unset(pipeline: PipelineName) -> None:
    request = asked(pipeline, images=(ImageCondition("a.png"),))
    bound = bind(request, DEFAULTS_2_3)
    unset = {name for name, value in bound if value is None} - {"guidance_batch"}
    steps = {"num_inference_steps"} if not bound.recipe.guided else set()
    assert unset == {"output_height", "output_width", "seconds"} | steps
    assert {image.crf for image in bound.images} <= {33}


def test_what_is_given_stays() -> None:
    given = {"height": 128, "num_frames": 17, "frame_rate": 30.0, "seed": 0, "negative_prompt": ""}
    images = (ImageCondition("a.png", crf=0),)
    bound = bind(Request("a", video_guidance=Guidance(), images=images, **given), DEFAULTS_2_3)
    assert {name: value for name, value in bound if name in given} == given
    assert bound.video_guidance == Guidance()
    assert bound.images == images


def test_guidance_is_overridden_scale_by_scale() -> None:
    bound = bind(Request("a", video_guidance=GuidanceOverrides(cfg=1.5, rescale=0.0)), DEFAULTS_2_3)
    assert bound.video_guidance == replace(TWO_STAGE_2_3.video_guidance, cfg=1.5, rescale=0.0)
    assert bound.audio_guidance == TWO_STAGE_2_3.audio_guidance


@pytest.mark.parametrize("pipeline", get_args(PipelineName))
def test_a_bound_request_can_be_asked_for_again(pipeline: PipelineName) -> None:
    bound = bind(asked(pipeline), DEFAULTS_2_3)
    assert bind(bound, SHORT) == bound
    other = bound.model_copy(update={"seed": 4})
    assert isinstance(other, BoundRequest)
    assert other == bind(asked(pipeline, seed=4), DEFAULTS_2_3)


@pytest.mark.parametrize(
    ("defaults", "values", "message"),
    [
        ({}, {"output_width": 1600}, "output_width: 1600 cannot be cut from 1536 pixels"),
        ({"frame_rate": 120.0}, {"num_frames": 1}, "1 at 120 frames a second is too short"),
        ({"num_frames": 1}, {"frame_rate": 120}, "1 at 120 frames a second is too short"),
        (
            {"num_frames": 9},
            {"images": (ImageCondition("a.png", frame=9),)},
            "frame 9 is outside the video, which has frames 0 to 8",
        ),
    ],
)
def test_defaults_that_contradict_what_is_given(defaults: dict, values: dict, message: str) -> None:
    request = Request("a", **values)
    with pytest.raises(RequestError, match=message):
        bind(request, replace(DEFAULTS_2_3, **defaults))


def test_the_first_check_refuses_what_no_version_can_make(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Request("a", images=(ImageCondition(Path("a.png"), frame=60),))
    require_possible(late)
    monkeypatch.setattr(binding, "DEFAULTS", {"short": SHORT, "2.3": DEFAULTS_2_3})
    require_possible(late)
    monkeypatch.setattr(binding, "DEFAULTS", {"short": SHORT})
    with pytest.raises(RequestError, match="frame 60 is outside"):
        require_possible(late)
