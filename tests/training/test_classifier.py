from pathlib import Path

import torch
from training.classifier import FRAMES, Judge, clips, ordered, targets
from training.onsets import FAR, distances, onsets
from training.world import MOTIONS, events, sample_scenes
from training.world.motion import standing_places
from training.world.sound import SAMPLE_RATE, sound


def test_onsets_of_the_world_s_sound_are_heard_to_the_millisecond() -> None:
    scenes = sample_scenes(12, 3)
    found = onsets(sound(scenes, torch.zeros(12), 2 * SAMPLE_RATE), SAMPLE_RATE)
    late = []
    for heard, listed in zip(found, events(scenes, 2.0), strict=True):
        late += distances([time for _, time in listed if 0.1 < time < 1.9], heard)
    assert len(late) > 3
    assert sorted(late)[len(late) // 2] < 0.005


def test_an_event_without_a_sound_counts_as_far() -> None:
    assert distances([1.0], []) == [FAR]
    assert distances([1.0], [0.2, 1.03]) == [1.03 - 1.0]


def test_targets_peak_at_the_events() -> None:
    scenes = sample_scenes(20, 3)
    named, curve = targets(scenes)
    assert curve.shape == (20, FRAMES)
    for row, listed in enumerate(events(scenes, 2.0)):
        assert (curve[row].max() > 0.85) == any(time > 0.02 for _, time in listed)
        for _, time in listed:
            assert curve[row, round(time * 24)] > 0.85
    assert set(named["shape"].unique().tolist()) <= set(range(6))


def test_of_two_that_move_the_left_is_judged_first_and_the_resting_last() -> None:
    scenes = sample_scenes(200, 1)
    order, places = ordered(scenes), standing_places(scenes)[..., 0]
    sorted_places = places.gather(1, order)
    both = (scenes.objects == 2) & (scenes.motion[:, 1] != MOTIONS.index("rest"))
    assert (sorted_places[both, 0] < sorted_places[both, 1]).all()
    assert (order[~both, 0] == 0).all()


def test_a_judge_fits_in_a_megabyte(tmp_path: Path) -> None:
    judge = Judge()
    assert 2 * sum(each.numel() for each in judge.parameters()) < 2**20
    _, video = clips(0, 2, torch.device("cpu"))
    logits, curve = judge(video)
    assert logits["colour"].shape == (2, 2, 8)
    assert curve.shape == (2, FRAMES)
