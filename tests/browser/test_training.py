"""The dashboard in a real browser while the real trainer is at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.pages import assert_no_errors, metric, open_first_run, take_picture, wait_for_curve, wait_for_script
from tests.tiny_runs import SETTINGS, Forks, flags

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

# More steps than the test waits for; the stop file ends the run, and if the test fails before, the minutes do.
LONG = {"steps": 1_000_000, "max_minutes": 3, "eval_every": 50, "save_every": 1000, "halt_max_steps": 2}


def test_the_curve_of_a_training_moves_and_its_stop_is_seen(
    workspace: Path, source: Path, forks: Forks, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    settings = {
        **SETTINGS,
        **LONG,
        "dataset_file": source / "training_data" / "text.txt",
        "model": source / "artifacts" / "hf_implant" / "tokenizers",
        "brain_name": "live",
        "stop_file": "stop",
    }
    training = forks.start(workspace, "train", "actv1", *flags(settings))
    page.goto(start_dashboard(workspace))
    page.get_by_text("1 running").wait_for()
    open_first_run(page)
    first = wait_for_curve(page, 20)
    steps = int(metric(page, "Step").replace(",", ""))
    later = wait_for_curve(page, 20, beyond=first[-1] + 20)
    assert later[-1] > first[-1]
    wait_for_script(
        page,
        "before => Number([...document.querySelectorAll('[data-testid=stMetric]')]"
        ".find(card => card.innerText.startsWith('Step')).querySelector('[data-testid=stMetricValue]')"
        ".innerText.replaceAll(',', '')) > before",
        steps,
    )
    assert_no_errors(page)
    take_picture(page, screenshots / "training.png")
    page.get_by_text("Evaluation", exact=True).filter(visible=True).first.click()
    wait_for_curve(page, 1, name="segment 1")
    assert_no_errors(page)
    (workspace / "stop").touch()
    assert training.wait() == 0, (workspace / "log").read_text(encoding="utf8")
    page.get_by_text("stopped", exact=True).filter(visible=True).first.wait_for()
    assert_no_errors(page)
