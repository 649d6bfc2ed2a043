"""What OpenAI's own client does with the service, whichever version of it is imported.

A program of its own, so that two versions can be tried:
python -m tests.serve.openai_client URL KEY SECRET FOLDER
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

SMALL: dict[str, Any] = {"num_frames": 9, "num_inference_steps": 2}


def main(url: str, key: str, secret: str, folder: Path) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    video = create_poll_and_download(client, folder)
    pages(client, video.id)
    images_and_extras(client, folder)
    errors(client, url)
    retries(client)
    webhooks(client, secret, folder)
    client.videos.delete(video.id)
    refused(lambda: client.videos.retrieve(video.id), openai.NotFoundError, "video_not_found")
    print(openai.__version__)


def create_poll_and_download(client: openai.OpenAI, folder: Path) -> Any:
    video = client.videos.create_and_poll(
        prompt="A street",
        model="ltx-2.3",  # type: ignore[arg-type]
        size="128x128",  # type: ignore[arg-type]
        seconds="4",
        extra_body=SMALL | {"seed": 7},
        poll_interval_ms=200,
    )
    assert video.status == "completed", video
    assert (video.progress, video.size, video.model) == (100, "128x128", "ltx-2.3")
    assert video.completed_at is not None
    assert video.completed_at >= video.created_at
    assert video.error is None
    assert video.model_extra is not None
    assert video.model_extra["seed"] == 7
    for variant, head in (("video", b"ftyp"), ("thumbnail", b"WEBP"), ("spritesheet", b"JFIF")):
        content = client.videos.download_content(video.id, variant=variant)  # type: ignore[arg-type]
        path = folder / f"{openai.__version__}-{variant}"
        content.write_to_file(path)
        assert head in path.read_bytes()[:16], variant
    return video


def pages(client: openai.OpenAI, known: str) -> None:
    others = [client.videos.create(prompt="A street", extra_body=SMALL).id for _ in range(3)]
    found = [video.id for video in client.videos.list(limit=2)]
    assert found[:3] == others[::-1]
    assert known in found
    assert [video.id for video in client.videos.list(limit=50, order="asc")] == found[::-1]
    for other in others:
        client.videos.delete(other)


def images_and_extras(client: openai.OpenAI, folder: Path) -> None:
    picture = io.BytesIO()
    Image.linear_gradient("L").save(picture, format="PNG")
    video = client.videos.create(
        prompt="A street",
        input_reference=("../../gradient.png", picture.getvalue(), "image/png"),
        extra_body=SMALL
        | {
            "guidance_scale": 2.5,
            "negative_prompt": "fog",
            "images": json.dumps([{"frame": 8, "strength": 0.5}]),
            "video_stg_blocks": "[1]",
            "truncate_prompt": True,
            "fps": 25,
        },
    )
    extra = video.model_extra or {}
    assert extra["images"] == [{"frame": 8, "strength": 0.5, "crf": None}]
    assert extra["settings"]["video_cfg_guidance_scale"] == 2.5
    assert extra["settings"]["video_stg_blocks"] == [1]
    assert extra["settings"]["truncate_prompt"] is True
    assert extra["fps"] == 25
    client.videos.delete(video.id)


def refused(call: Any, kind: type[openai.APIStatusError], code: str) -> openai.APIStatusError:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code, caught.value.body
    return caught.value


def errors(client: openai.OpenAI, url: str) -> None:
    create = client.videos.create
    error = refused(
        lambda: create(prompt="A", extra_body={"sead": 3}), openai.BadRequestError, "unknown_field"
    )
    assert error.param == "sead"
    error = refused(
        lambda: create(prompt="A", extra_body={"guidance": {"x": 1}}),
        openai.BadRequestError,
        "unknown_field",
    )
    assert "as JSON in one string" in error.message
    refused(lambda: create(prompt="A", model="other"), openai.NotFoundError, "model_not_found")
    error = refused(
        lambda: create(prompt="A", size="12x12000"),  # type: ignore[arg-type]
        openai.BadRequestError,
        "invalid_value",
    )
    assert error.param == "size"
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="ek-wrong")
    refused(lambda: stranger.videos.list(), openai.AuthenticationError, "invalid_api_key")
    failed = client.videos.create_and_poll(prompt="refuse", extra_body=SMALL, poll_interval_ms=100)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "model_error"
    # The client retries a 409 unless it is told not to: this would take seconds otherwise.
    error = refused(
        lambda: client.videos.download_content(failed.id), openai.ConflictError, "video_failed"
    )
    assert error.response.headers["x-should-retry"] == "false"


def retries(client: openai.OpenAI) -> None:
    """The queue of the service takes two: the third is refused, and granted after the wait."""
    slow = [client.videos.create(prompt="steps 30", extra_body=SMALL) for _ in range(3)]
    error = refused(
        lambda: client.with_options(max_retries=0).videos.create(prompt="A", extra_body=SMALL),
        openai.RateLimitError,
        "queue_full",
    )
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    patient = client.with_options(max_retries=5)
    granted = patient.videos.create(prompt="A street", extra_body=SMALL)
    assert client.videos.poll(granted.id, poll_interval_ms=200).status == "completed"
    for video in (*slow, granted):
        client.videos.delete(video.id)


def webhooks(client: openai.OpenAI, secret: str, folder: Path) -> None:
    """The messages that the service has sent by now, as the test wrote them down."""
    messages = json.loads((folder / "hooks.json").read_text())
    assert messages
    for headers, body in messages:
        client.webhooks.verify_signature(body, headers, secret=secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.verify_signature(body + " ", headers, secret=secret)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
