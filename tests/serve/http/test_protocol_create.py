"""Asking for a video: fields, forms, sizes, lengths, images, estimates."""

import base64
import io
import json
from typing import Any

import av
import pytest
from PIL import Image

from ..running import Local, small
from .asking import encoded, error_of, png

FIELDS: dict[str, Any] = small(
    negative_prompt="fog",
    fps=25.0,
    seed=7,
    pipeline="one-stage",
    guidance_scale=3.5,
    audio_cfg_guidance_scale=4.0,
    video_stg_blocks=[1, 2],
    guidance_batch=2,
    truncate_prompt=True,
    preview=True,
)


PIXEL = f"data:image/png;base64,{base64.b64encode(png((1, 1))).decode()}"


def as_form(fields: dict[str, Any]) -> dict[str, str]:
    """Scalars as words, lists as JSON in a string."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
    }


def estimate(running: Local, **fields: Any) -> Any:
    answer = running.client.post("/v1/videos/estimate", json=small() | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_form_asks_for_what_json_asks_for(shared: Local) -> None:
    form = as_form(FIELDS)
    answers = [
        shared.client.post("/v1/videos", json=FIELDS),
        shared.client.post("/v1/videos", json=form),  # OpenAI's numbers are strings
        shared.client.post("/v1/videos", data=form),
        shared.client.post("/v1/videos", files={name: (None, form[name]) for name in form}),
    ]
    videos = [answer.json() for answer in answers]
    assert len({video["id"] for video in videos}) == 4
    for video in videos:
        settings = video["settings"]
        assert settings == videos[0]["settings"]
        asked = FIELDS | {"video_cfg_guidance_scale": 3.5}
        del asked["guidance_scale"]
        assert {name: settings[name] for name in asked} == asked


def test_a_new_video_is_whole(shared: Local) -> None:
    video = shared.create("A street", seed=5)
    assert video["object"] == "video"
    assert video["status"] == "queued"
    assert video["progress"] == 0
    assert video["completed_at"] is video["error"] is video["bytes"] is None
    assert video["queue_position"] >= 1
    assert video["estimated_s"] == 2.0
    assert video["eta_s"] >= 2.0
    done = shared.ended(video["id"])
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["created_at"] <= done["started_at"] <= done["completed_at"] < done["expires_at"]
    assert done["queue_position"] is done["eta_s"] is done["stage"] is None
    assert done["bytes"] == len(shared.client.get(f"/v1/videos/{video['id']}/content").content)


def test_the_settings_of_a_video_ask_for_the_same_again(shared: Local) -> None:
    video = shared.create("A street", guidance_scale=2.0)
    answer = shared.client.post("/v1/videos", json=video["settings"])
    assert answer.status_code == 200
    assert answer.json()["settings"] == video["settings"]


def test_a_seed_is_random_and_told(shared: Local) -> None:
    assert shared.create()["seed"] != shared.create()["seed"]
    assert shared.create(seed=2**64 - 1)["seed"] == 2**64 - 1


@pytest.mark.parametrize("fps", [23.976, "24000/1001", "23.98"])
def test_frame_rates_of_television_are_exact(shared: Local, fps: float | str) -> None:
    assert shared.create(fps=fps)["fps"] == 24000 / 1001


def test_a_size_that_is_not_rendered_is_cut_from_the_next(shared: Local) -> None:
    video = shared.create(size="720x1280")
    assert video["render_size"] == "768x1280"
    assert video["size"] == "720x1280"
    assert (video["width"], video["height"]) == (720, 1280)
    work = shared.service._work_of(shared.service.store.find(video["id"]))  # type: ignore[arg-type]
    made = work.request
    assert (made.width, made.height) == (768, 1280)
    assert (made.output_width, made.output_height) == (720, 1280)
    assert shared.ended(video["id"])["size"] == "720x1280"


@pytest.mark.parametrize(
    ("fields", "size", "render_size"),
    [
        ({"size": "1280x720"}, "1280x720", "1280x768"),
        ({"size": "64x64"}, "64x64", "64x64"),
        ({"size": "96x96"}, "96x96", "128x128"),
        ({"size": "96x96", "pipeline": "one-stage"}, "96x96", "96x96"),
        ({"size": None, "width": 130, "height": 64}, "130x64", "192x64"),
        ({"size": "130x64", "width": 130, "height": 64}, "130x64", "192x64"),
        ({"size": None}, "720x1280", "768x1280"),
    ],
)
def test_sizes(shared: Local, fields: dict[str, Any], size: str, render_size: str) -> None:
    found = estimate(shared, **fields)
    assert (found["size"], found["render_size"]) == (size, render_size)
    assert f"{found['width']}x{found['height']}" == size


@pytest.mark.parametrize(
    ("fields", "frames", "seconds"),
    [
        ({}, 97, "4"),
        ({"seconds": "4"}, 97, "4"),
        ({"seconds": 8}, 193, "8"),
        ({"seconds": "0.01"}, 9, "0.01"),
        ({"seconds": 1, "fps": 50}, 49, "1"),
        ({"num_frames": 49}, 49, "2.04"),
        ({"seconds": 4, "fps": "24000/1001"}, 97, "4"),
        ({"num_frames": 9, "seconds": 4}, 9, "0.38"),
    ],
)
def test_lengths(shared: Local, fields: dict[str, Any], frames: int, seconds: str) -> None:
    found = estimate(shared, **({"num_frames": None} | fields))
    assert (found["num_frames"], found["seconds"]) == (frames, seconds)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "invalid_value"),
        ({"promt": "A street"}, "promt", "unknown_field"),
        ({"size": "65x64"}, "size", "invalid_value"),
        ({"size": "9000x64"}, "size", "invalid_value"),
        ({"size": "128x64", "width": 64, "height": 64}, "size", "contradiction"),
        ({"size": None, "width": 64}, "height", None),
        ({"size": None, "height": 64}, "width", None),
        ({"size": "4096x4096", "num_frames": 1001}, "size", "too_large"),
        ({"num_frames": 10}, "num_frames", "invalid_value"),
        ({"num_inference_steps": 101}, "num_inference_steps", "too_many_steps"),
        ({"pipeline": "distilled"}, "num_inference_steps", "invalid_value"),
        ({"pipeline": "three-stage"}, "pipeline", "invalid_value"),
        ({"video_rescale_scale": 1.5}, "video_rescale_scale", "invalid_value"),
        ({"model": "sora-2"}, "model", "model_not_found"),
        ({"loras": [{"name": "none"}]}, "loras", "lora_not_found"),
        ({"loras": [{"name": "none", "path": "/"}]}, "path", "unknown_field"),
        ({"fps": 241}, "fps", "invalid_value"),
        ({"fps": 0.05}, "fps", "invalid_value"),
        ({"fps": "24/0"}, "fps", "invalid_value"),
        ({"fps": "1e999999999"}, "fps", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"images": [{"image": PIXEL}, {"image": PIXEL}]}, "images", "invalid_value"),
        ({"images": [{"image": PIXEL}], "input_reference": PIXEL}, "images", "invalid_value"),
        ({"images": [{"image": PIXEL, "frame": 9}]}, "images", "invalid_value"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_estimate_refuses_what_asking_would(
    shared: Local, fields: dict[str, Any], param: str, code: str | None
) -> None:
    asked = small() | fields
    status = 404 if code == "model_not_found" else 400
    created = shared.client.post("/v1/videos", json=asked)
    error_of(created, status, code, param)
    assert shared.client.post("/v1/videos/estimate", json=asked).json() == created.json()


def test_lists_as_brackets_are_refused_with_what_to_do(shared: Local) -> None:
    for name in ("loras[0][name]", "images[]", "video_stg_blocks[0]"):
        answer = shared.client.post("/v1/videos", data=as_form(small()) | {name: "style"})
        error = error_of(answer, 400, "unknown_field", name)
        assert f"{name.partition('[')[0]}='[" in error["message"]


def test_an_estimate_queues_nothing(shared: Local) -> None:
    before = shared.service.store.known()
    found = estimate(shared)
    assert found["object"] == "video.estimate"
    assert found["estimated_s"] == 2.0
    assert found["queue_s"] >= 0
    assert shared.service.store.known() == before


def test_images_of_a_form_come_back_in_their_order(shared: Local) -> None:
    colours = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
    files = [
        ("input_reference", (f"{name}.png", png((20, 10), name), "image/png")) for name in colours
    ]
    said = [{"frame": 8}, {"frame": 0, "strength": 0.5, "crf": 30}]  # the last one: as usual
    form = as_form(small(num_frames=17, images=[*said, {"frame": 16}]))
    video = shared.client.post("/v1/videos", data=form, files=files).json()
    assert video["images"] == [
        {"frame": 8, "strength": 1.0, "crf": None},
        {"frame": 0, "strength": 0.5, "crf": 30},
        {"frame": 16, "strength": 1.0, "crf": None},
    ]
    assert "images" not in video["settings"]
    for number, colour in enumerate(colours.values()):
        back = shared.client.get(f"/v1/videos/{video['id']}/images/{number}")
        assert back.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(back.content))
        assert (image.format, image.size, image.getpixel((3, 3))) == ("PNG", (20, 10), colour)
    error_of(shared.client.get(f"/v1/videos/{video['id']}/images/3"), 404, "image_not_found")


def test_images_of_json_are_data_urls(shared: Local) -> None:
    data = base64.b64encode(encoded(Image.new("RGB", (9, 9), "red"), "BMP")).decode()
    url = f"data:image/bmp;base64,{data}"
    for fields in (
        {"input_reference": url},
        {"input_reference": {"image_url": url}},
        {"images": [{"image": url}]},
    ):
        video = shared.create(**fields)
        assert video["images"] == [{"frame": 0, "strength": 1.0, "crf": None}]
        back = shared.client.get(f"/v1/videos/{video['id']}/images/0")
        assert Image.open(io.BytesIO(back.content)).format == "PNG"


def test_images_have_to_fit(shared: Local) -> None:
    file = ("input_reference", ("a.png", png(), "image/png"))

    def ask(count: int, images: list[dict[str, int]] | None = None) -> Any:
        form = as_form(small() | ({} if images is None else {"images": images}))
        return shared.client.post("/v1/videos", data=form, files=[file] * count)

    error_of(ask(1, [{"frame": 0}, {"frame": 8}]), 400, param="images")
    error_of(ask(2), 400, "invalid_value", "images")  # both at frame 0
    error_of(ask(1, [{"frame": 9}]), 400, "invalid_value", "images")
    error_of(ask(9), 400, "too_many", "input_reference")


def test_the_file_is_of_the_size_that_was_asked_for(shared: Local) -> None:
    video = shared.create(size="128x64")
    shared.ended(video["id"])
    content = shared.client.get(f"/v1/videos/{video['id']}/content").content
    with av.open(io.BytesIO(content)) as file:
        stream = file.streams.video[0]
        assert (stream.width, stream.height) == (128, 64)
