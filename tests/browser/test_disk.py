"""The page Disk in a real browser: a run is ticked, its old checkpoints go, the disk and the command line agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hrm_engine.store.paths import Workspace
from tests.browser.pages import (
    assert_no_errors,
    metric,
    open_first_run,
    take_picture,
    wait_for_script,
    wait_until_drawn,
)
from tests.dashboard.run_folders import write_checkpoint, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_old_checkpoints_give_space_back(
    workspace: Path, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    lab = Workspace(workspace)
    for number, name in enumerate(("first", "second", "third")):
        run = write_run(lab.root, name, last=20 * (number + 1))
        for step in range(1, number + 3):
            write_checkpoint(run, step, 400_000)
            (run / "best").mkdir(exist_ok=True)
            (run / "best" / "model.safetensors").write_bytes(bytes(300_000))
            (run / "model.safetensors").write_bytes(bytes(300_000))
    write_run(lab.root, "first-20260101T000000Z", last=5, folder="artifacts/brains/actv1/.archive")
    (lab.training_data / "text.txt").write_bytes(bytes(1_234_567))
    page.goto(start_dashboard(lab.root))
    page.get_by_text("3 runs").wait_for()
    wait_until_drawn(page)
    page.get_by_role("link", name="Disk").click()
    page.get_by_text("4 of 4 runs").wait_for()
    before = metric(page, "In checkpoints")
    open_first_run(page)
    page.get_by_text("lab bundle delete artifacts/brains/actv1/third --old-checkpoints").wait_for()
    take_picture(page, screenshots / "disk.png")
    page.get_by_role("button", name="Delete old checkpoints").click()
    asked = page.get_by_role("dialog").filter(has_text="Delete old checkpoints")
    asked.get_by_text("The weights to use stay.").wait_for()
    take_picture(page, screenshots / "dialog.png")
    asked.get_by_role("button", name="Delete", exact=True).click()
    asked.wait_for(state="hidden")
    wait_for_script(
        page,
        "before => ![...document.querySelectorAll('[data-testid=stMetric]')].some("
        "card => card.innerText.includes(before))",
        before,
    )
    assert [path.name for path in (lab.brains / "third" / "checkpoints").iterdir()] == ["step_00000004"]
    assert_no_errors(page)
