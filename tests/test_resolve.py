"""What a request is on a model: batches of guidance passes, and what noise is scaled by."""

import pytest

from entracte import Guidance, Request
from entracte.pipeline.resolve import BATCH_TOKENS, resolve
from entracte.pipeline.resolved import ResolvedRequest
from entracte.planner.workload import recipe_weights
from entracte.versions import DEFAULTS_2_3


def resolved(request: Request, on_gpu: bool) -> ResolvedRequest:
    return resolve(request, DEFAULTS_2_3, 48, recipe_weights(request.recipe), on_gpu)


def rows(request: Request, on_gpu: bool = True) -> list[int]:
    return [phase.rows_at_once for phase in resolved(request, on_gpu).phases]


@pytest.mark.parametrize("size", [(512, 768), (1024, 1536), (2048, 3072)])
def test_all_passes_of_stage_1_take_no_more_tokens_than_stage_2(size: tuple[int, int]) -> None:
    request = Request("a", height=size[0], width=size[1])
    assert rows(request) == [4, 1]
    first, second = resolved(request, on_gpu=True).phases
    assert 4 * first.grid.tokens <= max(second.grid.tokens, BATCH_TOKENS)


def test_one_on_a_cpu() -> None:
    assert rows(Request("a"), on_gpu=False) == [1, 1]


def test_one_stage_has_room_for_small_videos_only() -> None:
    assert rows(Request("a", pipeline="one-stage", height=256, width=384)) == [4]
    assert rows(Request("a", pipeline="one-stage", height=512, width=512)) == [2]
    assert rows(Request("a", pipeline="one-stage", height=1024, width=1536)) == [1]


def test_no_more_than_there_are_passes() -> None:
    off = Guidance()
    request = Request("a", video_guidance=Guidance(cfg=3.0), audio_guidance=off)
    assert rows(request) == [2, 1]
    assert rows(Request("a", pipeline="distilled")) == [1, 1]


def test_what_is_asked_for_is_done_and_recorded() -> None:
    for on_gpu in (False, True):
        asked = resolved(Request("a", guidance_batch=3), on_gpu)
        assert asked.phases[0].rows_at_once == asked.request.guidance_batch == 3
    assert resolved(Request("a"), on_gpu=True).request.guidance_batch == 4
    assert resolved(Request("a"), on_gpu=False).request.guidance_batch == 1


def test_a_phase_that_begins_from_noise_takes_it_as_it_is() -> None:
    """The first level of its schedule is a rounding away from 1."""
    first, second = resolved(Request("a", num_inference_steps=3), on_gpu=False).phases
    assert first.sigmas[0] != 1.0
    assert first.phase.noise_scale == 1.0
    assert second.phase.noise_scale == second.sigmas[0] == 0.909375
