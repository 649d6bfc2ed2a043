"""Videos that are made, waited for, played and removed."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.running import wait_for

from .conftest import Fakes
from .journey import PLAYS, follow
from .visit import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Locator

Open = Callable[..., Visit]


def test_a_video_from_the_form_to_its_end(visit: Open, service: Fakes) -> None:
    service.hold()
    follow(visit(), service, service.release)


@pytest.mark.slow
def test_the_queue_is_left_by_cancelling_and_joined_again(visit: Open, service: Fakes) -> None:
    service.hold()
    seen = visit()
    page = seen.page
    for prompt in ("The first of two", "The second of two"):
        seen.fill_small(prompt)
        page.click("#create")
        seen.wait("#jobs .job", prompt)
    seen.wait("#jobs .job:nth-child(2)", "Next in line")

    # What is seen elsewhere is seen here.
    other = visit()
    other.wait("#jobs .job.running", "The first of two")
    other.wait("#jobs .job:nth-child(2)", "The second of two")

    page.get_by_role("button", name="Cancel: The second of two").click()
    seen.card("The second of two").wait_for()
    other.card("The second of two").wait_for()
    page.get_by_role("button", name="Cancel: The first of two").click()
    seen.wait(".card.cancelled", "The first of two")
    assert page.locator("#queue-empty").is_visible()
    assert page.evaluate("document.activeElement.id") == "queue-title", "the focus is not lost"

    cancelled = seen.card("The second of two")
    cancelled.get_by_role("button", name="Make it").click()
    seen.wait("#jobs .job.running", "The second of two")
    page.get_by_role("button", name="Cancel").click()
    page.locator("#queue-empty").wait_for()
    service.release()

    with service.client() as client:
        made = client.get("/v1/videos").json()["data"]
    again = [v for v in made if v["prompt"] == "The second of two"]
    assert len({v["seed"] for v in again}) == 1, "the same request"

    page.close()
    with service.client() as client:
        for video in made:
            client.delete(f"/v1/videos/{video['id']}")
    other.wait("#gallery-empty", "No videos yet")
    other.page.get_by_role("button", name="A lighthouse at dusk").click()
    assert other.page.input_value("#prompt").startswith("A lighthouse at dusk")


@pytest.fixture(scope="module")
def made(service: Fakes) -> Iterator[str]:
    """The prompt of a video that is there."""
    prompt = "A tram that was made before"
    fields = {"prompt": prompt, "size": "128x128", "num_frames": 25, "num_inference_steps": 1}
    with service.client() as client:
        path = f"/v1/videos/{client.post('/v1/videos', json=fields).json()['id']}"
        wait_for(lambda: client.get(path).json()["status"] == "completed")
        yield prompt
        client.delete(path)


def click(play: "Locator") -> None:
    play.click()


def tap(play: "Locator") -> None:
    play.tap()


def press(play: "Locator") -> None:
    play.focus()
    play.press("Enter")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "context"),
    [
        (click, {}),
        (press, {}),
        (tap, {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 800}}),
    ],
    ids=["click", "keyboard", "tap"],
)
def test_the_large_button_plays(
    visit: Open, made: str, act: Callable[["Locator"], None], context: dict[str, Any]
) -> None:
    seen = visit(**context)
    card = seen.card(made)
    play = card.get_by_role("button", name=f"Play: {made}")
    play.wait_for()
    assert card.locator("video").evaluate("video => video.paused")
    act(play)
    seen.wait_until(PLAYS, made)
    assert play.is_hidden()
    if act is press:
        assert seen.page.evaluate("document.activeElement.tagName") == "VIDEO"


@pytest.mark.slow
def test_a_video_that_failed_to_load_is_tried_again(visit: Open, made: str) -> None:
    seen = visit()
    seen.expect("Failed to load resource")
    card = seen.card(made)
    card.wait_for()
    content = re.compile(r"variant=video")
    seen.page.route(content, lambda route: route.abort())
    play = card.get_by_role("button", name=f"Play: {made}")
    play.click()
    seen.wait(".card-error", "cannot be played")
    seen.page.unroute(content)
    play.click()
    seen.wait_until(PLAYS, made)
    assert card.locator(".card-error").is_hidden()


@pytest.mark.slow
def test_a_third_image_stands_between_the_others(visit: Open) -> None:
    seen = visit()
    seen.expect("status of 400")
    seen.fill_small("A street", frames=17)
    for name in ("first", "last", "third", "fourth"):
        seen.drop(f"{name}.png", "navy")
    frames = seen.page.locator(".image-row input[type=number]:visible")
    assert [frame.input_value() for frame in frames.all()] == ["8", "4"]
    seen.wait("#estimate strong", "bout")
    frames.last.fill("0")
    seen.wait("#images-error", "wo images are at frame 0")
    frames.last.fill("12")
    seen.page.locator("#images-error").wait_for(state="hidden")
    seen.page.click("#clear")


def test_clearing_the_form_can_be_taken_back(visit: Open) -> None:
    seen = visit()
    page = seen.page
    seen.fill_small("A street that took an hour to write", steps=7)
    seen.drop("harbour.png", "navy")
    page.click("#clear")
    notice = seen.wait(".toast", "The form is empty.")
    assert page.input_value("#prompt") == ""
    assert page.locator(".image-row").count() == 0
    notice.get_by_role("button", name="Undo").click()
    assert page.input_value("#prompt") == "A street that took an hour to write"
    assert page.input_value("[name=num_inference_steps]") == "7"
    assert page.locator(".image-row").count() == 1
    page.click("#clear")
    page.reload()
    seen.wait("#estimate strong")
    assert page.input_value("#prompt") == ""
    assert page.locator(".image-row").count() == 0


@pytest.mark.slow
def test_a_phone_says_that_a_video_is_in_the_queue(visit: Open, service: Fakes) -> None:
    service.hold()
    keyboard_open = {"width": 390, "height": 320}  # the queue is below the edge
    seen = visit(has_touch=True, is_mobile=True, viewport=keyboard_open)
    seen.fill_small("A street on a phone")
    # By the page's own clock a notice stays for seconds, however slow this machine is.
    seen.page.clock.install()
    seen.page.clock.pause_at(4_000_000_000)
    seen.page.tap("#create")
    notice = seen.page.locator(".toast", has_text="in the queue")
    wait_for(lambda: seen.page.clock.run_for(100) or notice.count())
    notice.get_by_role("button", name="Show").tap()
    seen.page.clock.resume()
    seen.wait_until("document.querySelector('#queue-title').getBoundingClientRect().top < 100")
    seen.wait("#jobs .job", "A street on a phone")
    seen.page.get_by_role("button", name="Cancel: A street on a phone").tap()
    seen.card("A street on a phone").wait_for()
    service.release()
    with service.client() as client:
        video = client.get("/v1/videos").json()["data"][0]
        client.delete(f"/v1/videos/{video['id']}")


@pytest.mark.slow
def test_the_gallery_shows_more(visit: Open, service: Fakes) -> None:
    service.hold()  # so that all can be cancelled
    with service.client() as client:
        made = []
        for number in range(30):
            fields = {"prompt": f"Street {number:02}", "size": "1280x720", "seconds": "4"}
            made.append(client.post("/v1/videos", json=fields).json()["id"])
            client.post(f"/v1/videos/{made[-1]}/cancel")
        service.release()
        wait_for(lambda: client.get(f"/v1/videos/{made[0]}").json()["status"] == "failed")
    seen = visit()
    cards = seen.page.locator("#cards .card:not(.ghost)")
    seen.card("Street 29").wait_for()
    assert seen.card("Street 00").count() == 0
    assert cards.count() == 24
    seen.page.click("#more")
    seen.card("Street 00").wait_for()
    assert cards.count() >= 30
    assert seen.page.evaluate("document.activeElement.closest('.card') !== null"), "goes on there"
    ids = seen.page.evaluate("[...document.querySelectorAll('.card')].map((c) => c.dataset.id)")
    assert len(ids) == len(set(ids))
