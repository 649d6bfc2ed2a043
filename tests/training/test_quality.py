import math

import torch
from benchmarks.quality import Clip, psnr, rated, rendered, scored
from training.classifier import Judge, Seen, ordered
from training.world import BACKGROUNDS, COLOURS, MOTIONS, OBJECTS, Scenes, sample_scenes


def truth(scenes: Scenes, row: int) -> Seen:
    order = ordered(scenes)[row].tolist()[: int(scenes.objects[row])]
    objects = [
        (
            OBJECTS[scenes.shape[row, column]],
            COLOURS[scenes.colour[row, column]],
            MOTIONS[scenes.motion[row, column]],
        )
        for column in order
    ]
    return Seen(objects, BACKGROUNDS[scenes.background[row]], [])


def test_only_what_a_prompt_asks_for_is_right() -> None:
    scenes = sample_scenes(20, 0, "heldout")
    for row in range(20):
        seen = truth(scenes, row)
        assert all(scored(scenes, row, seen).values())
        (shape, _, motion), *others = seen.objects
        grey = Seen([(shape, "grey", motion), *others], seen.background, [])
        assert scored(scenes, row, grey) == {
            "object": True,
            "colour": False,
            "motion": True,
            "background": True,
        }
        assert not scored(scenes, row, Seen(seen.objects[1:], seen.background, []))["object"]


def test_a_row_has_every_figure_and_counts_what_is_not_heard() -> None:
    torch.manual_seed(0)
    scenes = sample_scenes(2, 0, "heldout")
    clips = rendered(scenes, (32, 48), 49)
    silent = [
        Clip(clip.frames, torch.zeros_like(clip.sound), clip.sample_rate, 1.0, "") for clip in clips
    ]
    figures = rated(Judge().eval(), scenes, silent)
    assert figures["seconds"] == 1
    assert figures["events"] == 0 or figures["onset ms"] == 250
    assert math.isnan(figures["given dB"])


def test_psnr_of_a_step_of_one() -> None:
    picture = torch.full((4, 4, 3), 10, dtype=torch.uint8)
    assert abs(psnr(picture, picture + 1) - 48.13) < 0.01
