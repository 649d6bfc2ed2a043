import re

import pytest
import torch
from training.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    OBJECTS,
    SAMPLE_RATE,
    captions,
    events,
    objects_mask,
    render,
    sample_scenes,
    vocabulary,
)
from training.world.captions import NOUNS, PLACES, SHADES, VERBS
from training.world.motion import FLOOR, poses
from training.world.scenes import HELD_OUT_COLOURS, HELD_OUT_MOTIONS, is_held_out

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def test_a_seed_gives_the_same_scenes_clips_and_captions() -> None:
    scenes, again = sample_scenes(6, 3), sample_scenes(2, 3)
    video, sound = render(scenes[:2], 3, 32, 48)
    same_video, same_sound = render(again, 3, 32, 48)
    assert torch.equal(video, same_video)
    assert torch.equal(sound, same_sound)
    assert captions(scenes, 1)[:2] == captions(again, 1)
    other, _ = render(sample_scenes(2, 4), 3, 32, 48)
    assert not torch.equal(video, other)


def test_a_clip_is_the_same_alone_and_among_others() -> None:
    scenes = sample_scenes(5, 0)
    video, sound = render(scenes, 2, 32, 48)
    alone, heard = render(scenes[3:4], 2, 32, 48)
    torch.testing.assert_close(video[3:4], alone)
    torch.testing.assert_close(sound[3:4], heard)


def test_held_out_pairs_are_never_trained_and_always_tested() -> None:
    trained, held_out = sample_scenes(4000, 0), sample_scenes(500, 0, "heldout")
    assert not is_held_out(trained).any()
    assert is_held_out(held_out).all()
    seen = {
        (OBJECTS[shape], COLOURS[colour])
        for shape, colour in zip(
            trained.shape[:, 0].tolist(), trained.colour[:, 0].tolist(), strict=True
        )
    }
    assert len(seen) == len(OBJECTS) * len(COLOURS) - len(HELD_OUT_COLOURS)
    moved = {
        (OBJECTS[shape], MOTIONS[motion])
        for shape, motion in zip(
            trained.shape[:, 0].tolist(), trained.motion[:, 0].tolist(), strict=True
        )
    }
    assert len(moved) == len(OBJECTS) * (len(MOTIONS) - 1) - len(HELD_OUT_MOTIONS)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' or 'heldout'"):
        sample_scenes(1, 0, "test")  # type: ignore[arg-type]


def test_captions_tell_the_scene_in_words_of_the_vocabulary() -> None:
    scenes = sample_scenes(300, 5)
    known = set(vocabulary())
    for row, text in enumerate(captions(scenes, 7)):
        assert re.fullmatch(r"([A-Z][a-z ,-]+\.)( [A-Z][a-z ,-]+\.)*", text), text
        assert set(re.findall(r"[a-z-]+", text.lower())) <= known, text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  ", text.lower()), text
        lowered = text.lower()
        for column in range(int(scenes.objects[row])):
            shape = OBJECTS[int(scenes.shape[row, column])]
            colour = COLOURS[int(scenes.colour[row, column])]
            pairs = [f"{shade} {noun}" for shade in SHADES[colour] for noun in NOUNS[shape]]
            assert any(pair in lowered for pair in pairs), text
        places = PLACES[BACKGROUNDS[int(scenes.background[row])]]
        assert any(place in lowered for place in places), text
        motion = MOTIONS[int(scenes.motion[row, 0])]
        if int(scenes.objects[row]) == 1:
            verbs = [verb.split(" {")[0] for forms in VERBS[motion] for verb in forms]
            assert any(verb in lowered for verb in verbs), text
        if motion in ("roll", "slide"):
            assert ("right to left" in lowered or "to the left" in lowered) or (
                "left to right" in lowered or "to the right" in lowered
            )


def test_each_event_sounds_at_its_time() -> None:
    scenes = sample_scenes(60, 11)
    sounding = [row for row, found in enumerate(events(scenes, 2.0)) if found]
    scenes = scenes[sounding[:10]]
    _, sound = render(scenes, 48, 8, 12)
    checked = 0
    for row, found in enumerate(events(scenes, 2.0)):
        times = [time for _, time in found]
        for time in times:
            if time < 0.05 or time > 1.95 or sum(abs(time - other) < 0.1 for other in times) > 1:
                continue
            at = round(time * SAMPLE_RATE)
            before = sound[row, :, at - 720 : at].square().mean()
            after = sound[row, :, at : at + 480].square().mean()
            assert after > 4 * before, (row, time)
            checked += 1
    assert checked > 10


def test_an_object_touches_the_ground_when_it_bounces() -> None:
    scenes = sample_scenes(40, 2)
    for row, found in enumerate(events(scenes, 2.0)):
        for column, time in found:
            if MOTIONS[int(scenes.motion[row, column])] == "bounce":
                pose = poses(scenes[row : row + 1], torch.tensor([[time]]))
                touched = pose.y + pose.radius * pose.stretch
                assert abs(float(touched[0, column, 0]) - FLOOR) < 1e-3


def test_a_window_is_a_part_of_the_picture() -> None:
    scenes = sample_scenes(3, 1)
    whole, _ = render(scenes, 2, 32, 48)
    part = torch.tensor([[0.25, 0.5, 0.75, 1.0]]).expand(3, 4)
    video, _ = render(scenes, 2, 16, 24, window=part)
    torch.testing.assert_close(video, whole[..., 16:, 12:36], atol=2e-4, rtol=0)


def test_a_later_start_goes_on_where_a_clip_ended() -> None:
    scenes = sample_scenes(3, 1)
    whole, _ = render(scenes, 4, 16, 24)
    later, _ = render(scenes, 2, 16, 24, start=2 / 24)
    torch.testing.assert_close(later, whole[:, :, 2:], atol=1e-3, rtol=0)


def test_the_mask_covers_what_moves() -> None:
    scenes = sample_scenes(4, 1)
    times = torch.zeros(4, 1)
    mask = objects_mask(scenes, times, 32, 48, WHOLE.expand(4, 4))
    assert mask.shape == (4, 1, 1, 32, 48)
    assert (mask.flatten(1).amax(1) == 1).all()
    assert (mask.flatten(1).mean(1) < 0.5).all()


@pytest.mark.parametrize(("height", "width"), [(24, 24), (40, 16), (16, 64)])
def test_any_size_shows_the_objects(height: int, width: int) -> None:
    scenes = sample_scenes(4, 1)
    mask = objects_mask(scenes, torch.ones(4, 1), height, width, WHOLE.expand(4, 4))
    assert (mask.flatten(1).amax(1) > 0.3).all()
    video, sound = render(scenes, 1, height, width)
    assert video.shape == (4, 3, 1, height, width)
    assert sound.shape == (4, 2, 2000)
    assert video.abs().max() <= 1
