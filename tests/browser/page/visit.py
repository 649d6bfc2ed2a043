"""One visit to the page."""

import base64
import io
import time
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, JSHandle, Locator

# Making a video here takes a second or two; the rest is patience with a busy machine.
PATIENCE_MS = 600_000

TRANSFER = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  return transfer;
}"""

PASTE = """(clipboardData) => document.body.dispatchEvent(
  new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""


class Visit:
    """A page, what it asked other origins for, and what the browser complained of."""

    def __init__(self, context: "BrowserContext", url: str) -> None:
        self.context = context
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self._expected: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        inside = (f"{url}/", "data:", f"blob:{url}/")

        def asked(address: str) -> None:
            if not address.startswith(inside):
                self.elsewhere.append(address)

        self.page.on("request", lambda request: asked(request.url))
        self.page.on("console", lambda said: self._hear(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def expect(self, *words: str) -> None:
        """Of what the browser will complain with reason."""
        self._expected += words

    def wait(self, selector: str, text: str | None = None) -> "Locator":
        """Until it can be seen."""
        found = self.page.locator(selector, has_text=text).first
        found.wait_for()
        return found

    def wait_until(self, expression: str, argument: Any = None) -> None:
        """Until it is true. (Playwright's own way is forbidden by the page's policy.)"""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression, argument):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            self.page.wait_for_timeout(30)

    def fill_small(self, prompt: str, frames: int = 9, steps: int = 2) -> None:
        """The form, for a video that is soon made."""
        page = self.page
        self.wait("#work")
        page.fill("#prompt", prompt)
        page.select_option("#size", "custom")
        page.fill("[name=width]", "128")
        page.fill("[name=height]", "128")
        page.select_option("[name=unit]", "num_frames")
        page.fill("#length", str(frames))
        if not page.locator("#advanced").evaluate("fold => fold.open"):
            page.click("#advanced > summary")
        page.fill("[name=num_inference_steps]", str(steps))

    def transfer(self, name: str, colour: str) -> "JSHandle":
        """A picture in the hands of whoever drags or copies it."""
        data = base64.b64encode(picture(colour)).decode()
        return self.page.evaluate_handle(TRANSFER, [name, data])

    def drop(self, name: str, colour: str) -> None:
        given = {"dataTransfer": self.transfer(name, colour)}
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("#drop", event, given)

    def paste(self, name: str, colour: str) -> None:
        self.page.evaluate(PASTE, self.transfer(name, colour))

    def card(self, prompt: str) -> "Locator":
        return self.page.locator("#cards .card", has_text=prompt)

    def close(self) -> None:
        self.context.close()

    def _hear(self, kind: str, text: str) -> None:
        loud = kind in ("error", "warning")
        if loud and not any(words in text for words in self._expected):
            self.complaints.append(text)


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()
