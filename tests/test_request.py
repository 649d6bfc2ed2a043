import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte import (
    ControlVideo,
    Guidance,
    ImageCondition,
    LoraSpec,
    Request,
    SoundCondition,
    SourceVideo,
)
from entracte.errors import RequestError
from entracte.recipes import GuidanceOverrides, PipelineName

CONTROL, SOUND = ControlVideo("a.mp4"), SoundCondition("a.wav")


def test_what_is_not_given_stays_unset() -> None:
    request = Request(prompt="a", seed=3)
    assert request.seed == 3
    unset = {name for name, value in request if value is None}
    assert unset == {
        "negative_prompt",
        "height",
        "width",
        "num_frames",
        "frame_rate",
        "num_inference_steps",
        "video_guidance",
        "audio_guidance",
        "output_height",
        "output_width",
        "truncate_prompt",
        "guidance_batch",
        "seconds",
    }


def test_none_means_unset() -> None:
    assert Request(prompt="a", height=None, seed=None, pipeline=None) == Request(prompt="a")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 100}, r"height: 100 is not a multiple of 64.* 64 and 128"),
        ({"width": 1500}, r"width: 1500 is not a multiple of 64.* 1472 and 1536"),
        ({"width": 40, "pipeline": "one-stage"}, r"multiple of 32.* 32 and 64"),
        ({"height": 0}, "height: must be more than 0, not 0"),
        ({"height": 64_000}, "height: must be at most 8,192, not 64000"),
        ({"output_width": 1537}, "output_width: .*multiple of 2"),
        ({"output_width": 1600, "width": 1536}, "output_width: 1600 cannot be cut from 1536"),
        ({"num_frames": 120}, r"120 is not of the form 8k \+ 1; nearest: 113 and 121"),
        ({"num_frames": 1, "frame_rate": 120}, "too short for any sound"),
        (
            {"pipeline": "audio-to-video"},
            "sound: the audio-to-video pipeline makes a video",
        ),
        ({"pipeline": "retake"}, "source: the retake pipeline makes a part .*; give it"),
        ({"source": SourceVideo("a.mp4", 1, 2)}, "source: .* takes none; retake and retake-guided"),
        ({"sound": SoundCondition("a.wav")}, "sound: .* takes none; audio-to-video takes it"),
        ({"pipeline": "extend"}, "extended: the extend pipeline makes a video longer; give it"),
        ({"pipeline": "ic-lora"}, "controls: the ic-lora pipeline makes a video after one"),
        ({"pipeline": "ic-lora", "controls": [CONTROL]}, "loras: .* needs the IC-LoRA"),
        ({"pipeline": "ic-lora", "controls": [CONTROL, 3]}, "controls: must be of ControlVideo"),
        ({"conditions": [3]}, "conditions: must be of ImageCondition, SoundCondition"),
        ({"conditions": [SOUND], "sound": SOUND}, "sound: is given more than once"),
        ({"frame_rate": 0}, "frame_rate: must be at least 0.1"),
        ({"frame_rate": float("nan")}, "frame_rate: .*finite"),
        ({"seed": -1}, "seed: must be at least 0, not -1"),
        ({"seed": 2**64}, "seed: must be at most 18,446,744,073,709,551,615"),
        ({"num_inference_steps": 0}, "num_inference_steps: must be more than 0"),
        ({"num_inference_steps": 10_000}, "num_inference_steps: must be at most 500"),
        ({"num_inference_steps": 8, "pipeline": "distilled"}, "11 fixed steps; leave it out"),
        (
            {"pipeline": "three-stage"},
            "'three-stage' is not one of two-stage, hq, one-stage, keyframes",
        ),
        ({"prompt": "  "}, "prompt: is empty"),
        ({"prompt": "caf\udce9"}, "prompt: is not Unicode text at character 4; is it in UTF-8?"),
        ({"negative_prompt": "\ud83d x"}, "negative_prompt: is not Unicode text at character 1"),
        (
            {"video_guidance": Guidance(rescale=2)},
            "video_guidance: rescale must be at most 1, not 2",
        ),
        (
            {"audio_guidance": Guidance(cfg=float("inf"))},
            "audio_guidance: cfg must be a finite number",
        ),
        (
            {"audio_guidance": GuidanceOverrides(stg=float("inf"))},
            "audio_guidance: stg must be a finite number",
        ),
        (
            {"video_guidance": GuidanceOverrides(rescale=2)},
            "video_guidance: rescale must be at most 1, not 2",
        ),
        ({"video_guidance": Guidance(stg_blocks=(-1,))}, "stg_blocks must be at least 0, not -1"),
        ({"colour": "blue"}, "colour: is unknown"),
        ({"guidance_batch": 5}, "guidance_batch: must be at most 4, not 5"),
    ],
)
def test_what_is_refused(values: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(**({"prompt": "a"} | values))


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(RequestError, match="(?s)height:.*seed:"):
        Request(prompt="a", height=-1, seed=-1)


@pytest.mark.parametrize("frame", [9, 500])
def test_images_outside_the_video(frame: int) -> None:
    image = ImageCondition(path=Path("a.png"), frame=frame)
    with pytest.raises(RequestError, match=f"frame {frame} is outside .*0 to 8"):
        Request(prompt="a", images=(image,), num_frames=9)


def test_two_images_at_one_frame() -> None:
    image = ImageCondition(path=Path("a.png"), frame=8)
    with pytest.raises(RequestError, match="two images are at frame 8"):
        Request(prompt="a", images=(image, image))


@pytest.mark.parametrize(
    "values", [{"strength": 1.5}, {"strength": -0.1}, {"frame": -1}, {"crf": 52}]
)
def test_image_values(values: dict) -> None:
    with pytest.raises(RequestError, match=next(iter(values))):
        ImageCondition(**({"path": Path("a.png"), "frame": 0} | values))


def test_lora_strength() -> None:
    with pytest.raises(RequestError, match="strength"):
        LoraSpec(path=Path("a"), strength=float("nan"))


@given(
    blocks=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    frames=st.integers(1, 60),
    seed=st.integers(0, 2**64 - 1),
)
def test_sensible_sizes_are_accepted(blocks: tuple[int, int], frames: int, seed: int) -> None:
    Request(
        prompt="a",
        height=64 * blocks[0],
        width=64 * blocks[1],
        num_frames=8 * frames + 1,
        seed=seed,
    )


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Request(prompt="a").seed = 3


def test_the_first_values_need_no_names() -> None:
    assert Request("a", seed=3) == Request(prompt="a", seed=3)
    assert ImageCondition("a.png") == ImageCondition(path="a.png", frame=0, strength=1.0)
    assert LoraSpec("style.safetensors", 0.7) == LoraSpec(path="style.safetensors", strength=0.7)
    with pytest.raises(RequestError, match="Request takes only prompt without a name"):
        Request("a", "two-stage")  # type: ignore[misc]
    with pytest.raises(RequestError, match="path is given twice"):
        ImageCondition("a.png", path="b.png")  # type: ignore[misc]


@pytest.mark.parametrize("pipeline", ["two-stage", "one-stage", "distilled"])
def test_a_copy_is_checked(pipeline: PipelineName) -> None:
    request = Request("a", pipeline=pipeline, seed=3)
    assert request.model_copy() == request
    assert request.model_copy(update={"seed": 4}) == Request("a", pipeline=pipeline, seed=4)
    with pytest.raises(RequestError, match="height: 100 is not a multiple"):
        request.model_copy(update={"height": 100})
    with pytest.raises(RequestError, match="sead: is unknown"):
        request.model_copy(update={"sead": 4})


def test_a_lora_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    (tmp_path / "link.safetensors").symlink_to(path)
    for again in (path, tmp_path / ".." / tmp_path.name / path.name, tmp_path / "link.safetensors"):
        with pytest.raises(RequestError, match="loras: .* is there twice"):
            Request(prompt="x", loras=(LoraSpec(path), LoraSpec(again, 0.5)))


def test_loras_are_bounded() -> None:
    for strength in (101, -100.5, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="strength"):
            LoraSpec("x", strength)
    loras = tuple(LoraSpec(f"{number}.safetensors") for number in range(33))
    with pytest.raises(RequestError, match="loras"):
        Request(prompt="x", loras=loras)
    Request(prompt="x", loras=loras[:32])


def test_a_request_can_be_sent_to_another_process() -> None:
    request = Request("a", images=(ImageCondition("a.png"),), loras=(LoraSpec("b", 0.5, name="c"),))
    assert pickle.loads(pickle.dumps(request)) == request
