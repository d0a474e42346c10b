"""Text in the Playground in a real browser: a real brain writes and reads, and each token shows how deep it went."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.pages import assert_no_errors, take_picture, wait_for_metric, wait_for_script
from tests.tiny_runs import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def lab(workspace: Path, source: Path) -> Lab:
    """A workspace with a tiny brain, trained for real."""
    found = Lab(workspace, source)
    found.trained("writer", halt_max_steps=3, max_seq_len=128)
    return found


def grounds(page: Page) -> list[str]:
    """The colours behind the tokens, as the browser draws them."""
    found: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('.written span[title]')].map(one => getComputedStyle(one).backgroundColor)"
    )
    return found


def test_a_brain_is_watched_writing(
    lab: Lab, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    with page.expect_websocket() as opening:
        page.goto(f"{start_dashboard(lab.root)}/playground")
    page.get_by_text("hrm-text, 3 segments in training").wait_for()
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.fill("the cat <img src=x onerror='document.title=1'>")
    prompt.press("Control+Enter")
    write = page.get_by_role("button", name="Write")
    write.click()
    wait_for_metric(page, "Mean depth", "3.00")
    deep = set(grounds(page))
    assert len(deep) == 1
    assert deep != {"rgba(0, 0, 0, 0)"}
    assert page.locator(".written").inner_text().startswith("the cat <img src=x")
    assert page.locator("img[src=x]").count() == 0
    token = page.locator(".written span[title]").first
    assert token.get_attribute("title") == "token 1: 3 segments of 3"
    assert_no_errors(page)

    # A threshold that no probability is above: every token stops after its first segment, on another ground.
    page.get_by_text("Adaptive depth").click()
    slider = page.get_by_role("slider", name="Go on above a probability of")
    slider.focus()
    with opening.value.expect_event("framesent"):  # not at once
        slider.press("End")
    write.click()
    wait_for_script(page, "() => document.querySelector('.written span[title]')?.title === 'token 1: 1 segment of 3'")
    # what was shown before stays on the page until the new text is finished
    wait_for_metric(page, "Mean depth", "1.00")
    assert set(grounds(page)).isdisjoint(deep)
    take_picture(page, screenshots / "writing.png")

    prompt.fill("cat " * 400)
    prompt.press("Control+Enter")
    write.click()
    page.get_by_text("The brain cannot continue this").wait_for()
    page.get_by_text("the model's context 128").wait_for()
    assert_no_errors(page)


def test_a_brain_is_watched_reading(
    lab: Lab, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    with page.expect_websocket() as opening:
        page.goto(f"{start_dashboard(lab.root)}/playground")
    page.get_by_role("radio", name="Read").click()
    text = page.get_by_role("textbox", name="Text")
    text.fill("the cat <img src=x onerror='document.title=1'>")
    text.press("Control+Enter")
    slider = page.get_by_role("slider", name="Go on above a probability of")
    slider.focus()
    with opening.value.expect_event("framesent"):
        slider.press("Home")
    button = page.get_by_role("button", name="Read")
    button.click()
    page.get_by_text("Mean loss").wait_for()
    wait_for_metric(page, "Mean depth", "3.00")
    deep = set(grounds(page))
    assert len(deep) == 1
    assert page.locator(".written").inner_text() == "the cat <img src=x onerror='document.title=1'>"
    assert page.locator("img[src=x]").count() == 0
    said = page.locator(".written span[title]").first.get_attribute("title")
    assert said is not None
    assert re.fullmatch(r"token 1: 3 segments of 3, loss \d+\.\d{3}", said)
    take_picture(page, screenshots / "reading.png")

    # A threshold that no probability is above: the brain answers after one segment, on another ground.
    slider.focus()
    with opening.value.expect_event("framesent"):  # not at once
        slider.press("End")
    button.click()
    wait_for_metric(page, "Mean depth", "1.00")
    assert set(grounds(page)).isdisjoint(deep)

    text.fill("cat " * 400)
    text.press("Control+Enter")
    button.click()
    page.get_by_text("The brain cannot read this").wait_for()
    assert_no_errors(page)
