"""Who has a key gets in, and out again."""

from collections.abc import Callable

from .conftest import Fakes
from .visit import Visit

Open = Callable[..., Visit]


def test_a_key_opens_the_page_and_signing_out_closes_it(visit: Open, service: Fakes) -> None:
    seen = visit(signed_in=False)
    seen.expect("status of 401")
    page = seen.page
    seen.wait("#sign-in-title", "Sign in")
    assert page.locator("#work").is_hidden()
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.press("Enter")
    seen.wait("#key-error", "Enter a key.")
    page.fill("#key", "ek-wrong")
    page.keyboard.press("Enter")
    seen.wait("#key-error", "This API key is not known.")
    page.fill("#key", f" {service.key} ")
    page.keyboard.press("Enter")
    seen.wait("#work")
    page.fill("#prompt", "A secret plan")
    page.click("#sign-out")
    seen.wait("#sign-in-title")
    page.reload()
    seen.wait("#sign-in-title")
    page.fill("#key", service.key)
    page.keyboard.press("Enter")
    seen.wait("#work")
    assert page.input_value("#prompt") == "", "nothing is left of who was here before"


def test_the_address_from_the_terminal_signs_in(visit: Open, service: Fakes) -> None:
    seen = visit()
    seen.wait("#work")
    assert seen.page.url == f"{service.url}/"

    # A cookie that is worth nothing any more leads back to the form.
    seen.wait("#estimate strong")  # the last that the page asks for by itself
    seen.expect("status of 401")
    seen.context.clear_cookies()
    seen.page.fill("#length", "3")
    seen.wait("#key-error", "You are signed out.")

    wrong = visit(signed_in=False)
    wrong.expect("status of 401")
    wrong.page.goto("about:blank")
    wrong.page.goto(f"{service.url}/#key=ek-wrong")
    wrong.wait("#key-error", "This API key is not known.")
