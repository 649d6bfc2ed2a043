"""Errors stand where they belong, in words."""

from collections.abc import Callable

import pytest

from .visit import Visit

Open = Callable[..., Visit]


@pytest.fixture
def seen(visit: Open) -> Visit:
    found = visit()
    found.expect("status of 400", "status of 429")
    found.fill_small("A street")
    return found


WRONG = [
    ("[name=height]", "127", "#size-error", "multiple of 2"),
    ("#length", "10", "#length-error", "8k + 1"),
    ("#fps", "0", "#fps-error", "ust be at least 0.1"),
    ("#num_inference_steps", "101", "#num_inference_steps-error", "At most 100 are allowed here."),
    ("#seed", "-1", "#seed-error", "ust be at least 0"),
    ("[name=video_rescale_scale]", "2", "#guidance-error", "ust be at most 1"),
    ("[name=video_stg_blocks]", "one", "#guidance-error", "whole numbers"),
]


def test_a_wrong_value_is_told_at_its_field(seen: Visit) -> None:
    page = seen.page
    for control, value, error, words in WRONG:
        right = page.input_value(control)
        page.fill(control, value)
        seen.wait(error, words)  # before anybody asks for the video
        seen.wait("#estimate", "Correct what is marked")
        assert page.locator("[aria-invalid=true]").count() >= 1
        page.fill(control, right)
        page.locator(error).wait_for(state="hidden")
        seen.wait("#estimate strong", "About")
    assert page.locator("#jobs .job").count() == 0


def test_the_first_thing_wrong_takes_the_focus(seen: Visit) -> None:
    page = seen.page
    page.fill("#prompt", "  ")
    page.click("#create")
    seen.wait("#prompt-error", "Say what the video should show.")
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert page.get_attribute("#prompt", "aria-invalid") == "true"
    page.fill("#prompt", "A street")
    assert page.get_attribute("#prompt", "aria-invalid") is None
    page.fill("[name=num_inference_steps]", "101")
    page.click("#advanced > summary")
    page.click("#create")
    seen.wait("#num_inference_steps-error", "At most 100")
    seen.wait_until("document.activeElement.name === 'num_inference_steps'")


@pytest.mark.slow
def test_what_is_no_image_is_not_taken(seen: Visit) -> None:
    page = seen.page
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    page.set_input_files("#image-files", [text])  # type: ignore[arg-type]
    seen.wait("#images-error", "notes.txt is not an image.")
    damaged = {"name": "cut.png", "mimeType": "image/png", "buffer": b"\x89PNG no more"}
    page.set_input_files("#image-files", [damaged])  # type: ignore[arg-type]
    page.locator("#images-error").wait_for(state="hidden")
    page.click("#create")
    seen.wait("#images-error", "umber 1")


@pytest.mark.slow
def test_a_full_queue_is_told_beside_the_button(seen: Visit) -> None:
    page = seen.page
    error = '{"error": {"message": "The queue is full.", "type": "rate_limit_error"}}'

    def refuse(route, request) -> None:  # type: ignore[no-untyped-def]
        if request.method != "POST":
            route.continue_()
            return
        headers = {"Retry-After": "12", "Content-Type": "application/json"}
        route.fulfill(status=429, headers=headers, body=error)

    page.route("**/v1/videos", refuse)
    page.click("#create")
    seen.wait("#form-error", "The queue is full. There may be room in 12 s.")
    assert page.input_value("#prompt") == "A street"
