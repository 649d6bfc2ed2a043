"""From the form to the gallery and back, through a reload and a restart of the server."""

from collections.abc import Callable

from tests.serve.running import Command, wait_for

from .conftest import Fakes
from .visit import Visit

SEED = str(2**64 - 1)  # no JavaScript number

PLAYS = """(prompt) => {
  const card = [...document.querySelectorAll(".card")].find((c) => c.textContent.includes(prompt));
  const video = card && card.querySelector("video");
  return video && !video.paused && video.currentTime > 0 && video.videoWidth === 128;
}"""

LOADED = "(image) => image.complete && image.naturalWidth > 0"


def follow(
    seen: Visit, service: Fakes | Command, released: Callable[[], object] = lambda: None
) -> None:
    """released: lets a video go on that fakes hold."""
    prompt = "A lighthouse with <b>bold</b> waves & a foghorn"
    page = seen.page
    seen.fill_small(prompt, frames=17, steps=60)  # an engine takes long enough to be looked at
    seen.drop("harbour.png", "navy")
    seen.paste("dusk.png", "orange")
    rows = page.locator(".image-row")
    assert rows.count() == 2
    rows.nth(1).locator("input[type=range]").fill("0.5")
    page.fill("#seed", SEED)
    page.check("[name=preview]")
    seen.wait("#estimate", "17 frames at 24 a second")

    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    seen.wait("#jobs .job", prompt)
    seen.wait("#jobs .job.running [aria-current=step]")
    seen.wait("#engine-status", "Working")
    seen.wait_until("document.title.includes('%')")
    seen.wait("#jobs .job [role=progressbar][aria-valuetext*=' of ']")
    released()

    card = seen.card(prompt)
    card.wait_for()
    seen.wait_until("document.title === 'Entracte'")
    assert card.locator("b").count() == 0, "a prompt is text"
    with service.client() as client:
        video = client.get("/v1/videos").json()["data"][0]
    assert video["prompt"] == prompt
    assert video["seed"] == int(SEED)
    assert [(i["frame"], i["strength"]) for i in video["images"]] == [(0, 1.0), (16, 0.5)]
    assert video["settings"]["preview"] is True

    page.reload()
    card.wait_for()
    assert page.input_value("#prompt") == prompt, "the draft survives"
    seen.wait_until("document.querySelectorAll('.image-row').length === 2")

    seen.expect("Failed to load resource", "net::ERR")
    service.stop()
    seen.wait("#connection", "Reconnecting")
    assert card.is_visible(), "what is known stays"
    service.start()
    page.locator("#connection").wait_for(state="hidden")

    play = card.get_by_role("button", name=f"Play: {prompt}")
    play.click()
    seen.wait_until(PLAYS, prompt)
    assert play.is_hidden()
    card.locator("summary").click()
    assert card.locator("dd", has_text=SEED).count() >= 1
    wait_for(lambda: all(i.evaluate(LOADED) for i in card.locator(".pictures img").all()))

    page.click("#clear")
    seen.wait_until("document.querySelector('#prompt').value === ''")
    card.get_by_role("button", name="Reuse settings").click()
    seen.wait(".toast", "Settings copied")
    assert page.input_value("#prompt") == prompt
    assert page.input_value("#length") == "0.71"
    assert page.input_value("[name=width]") == "128"
    assert page.input_value("[name=num_inference_steps]") == "60"
    assert page.input_value("#seed") == "", "a new one"
    assert rows.count() == 2
    assert rows.nth(1).locator("input[type=range]").input_value() == "0.5"
    page.get_by_role("button", name="Use its seed too").click()
    assert page.input_value("#seed") == SEED

    card.get_by_role("button", name="Delete").click()
    card.wait_for(state="detached")
    seen.wait(".toast", "Deleted").get_by_role("button", name="Undo").click()
    card.wait_for()
    card.get_by_role("button", name="Delete").click()
    seen.wait(".toast", "Deleted").get_by_role("button", name="Dismiss").click()
    with service.client() as client:
        wait_for(lambda: client.get(f"/v1/videos/{video['id']}").status_code == 404)
