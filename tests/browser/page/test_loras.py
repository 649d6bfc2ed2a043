"""A LoRA of the page: refused whole, applied in part, and replaced under a running service."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from entracte.synthetic.demo import DISTILLED_LORA
from tests.serve.running import Command

from .visit import Visit


@pytest.fixture(scope="session")
def service(engine: Command) -> Command:
    return engine


@pytest.mark.slow
def test_a_lora_in_part_and_another_in_its_place(
    visit: Callable[..., Visit], lora: Path, demo_model: Path
) -> None:
    seen = visit()
    page = seen.page
    seen.expect("400 (Bad Request)")
    seen.fill_small("A street in my style")
    page.fill("#seed", "7")
    page.select_option("#lora-add", "My Style")
    page.click("#create")
    seen.wait("#loras-error", "other.lora_A.weight")

    page.get_by_label("Only what fits of My Style").check()
    page.click("#create")
    card = seen.card("A street in my style")
    warning = card.locator(".warnings li")
    warning.wait_for()
    assert warning.text_content().startswith("My Style: ")
    assert warning.get_attribute("title") == "other.lora_A.weight"

    another = lora.with_suffix(".new")
    weaker = {key: tensor / 2 for key, tensor in load_file(demo_model / DISTILLED_LORA).items()}
    save_file(weaker, another)
    another.replace(lora)
    card.get_by_role("button", name="Reuse settings").click()
    page.get_by_role("button", name="Use its seed too").click()
    assert page.get_by_label("Only what fits of My Style").is_checked()
    page.fill("#prompt", "A street in another style")
    page.click("#create")
    card = seen.card("A street in another style")
    card.wait_for()
    assert card.locator(".warnings").count() == 0
