"""The dashboard in a real browser, on run folders that change while it is open."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.pages import (
    assert_differ,
    assert_no_errors,
    metric,
    open_first_run,
    take_picture,
    wait_for_axis,
    wait_for_curve,
)
from tests.dashboard.run_folders import write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocket

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]

# Appends a step every 50 ms as a trainer does, until its standard input ends; then the run is finished.
WRITER = """
import sys, threading, time
from pathlib import Path
from hrm_engine.store.status import RunStatus, write_status
from tests.dashboard.run_folders import append_events, events

run, step = Path(sys.argv[1]), int(sys.argv[2])
ended = threading.Thread(target=sys.stdin.read, daemon=True)
ended.start()
while ended.is_alive():
    step += 1
    append_events(run / "metrics.jsonl", events(step, step))
    write_status(run, RunStatus.of_this_process("running", step, "training"))
    time.sleep(0.05)
write_status(run, RunStatus.of_this_process("finished", step, "finished"))
"""


@contextmanager
def trainer(run: Path, step: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that goes on with the run from ``step``; the run is finished when its standard input is closed."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(run), str(step)], stdin=subprocess.PIPE, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_curve_moves_while_a_trainer_writes(
    workspace: Path, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    write_run(workspace, "earlier", last=100)
    run = write_run(workspace, "live", last=60, planned=5000, state="running")
    address = start_dashboard(workspace)
    with trainer(run, 60) as process:
        page.goto(address)
        page.get_by_text("2 runs · 1 running").wait_for()
        open_first_run(page)
        page.wait_for_url("**/run?run=brains*")
        first = wait_for_curve(page, 60)
        take_picture(page, screenshots / "before.png")
        later = wait_for_curve(page, len(first) + 40)
        assert later[-1] > first[-1]
        assert int(metric(page, "Step").replace(",", "")) > 60
        page.get_by_text("running", exact=True).filter(visible=True).first.wait_for()
        assert_no_errors(page)

        # The axis stands in the link, so that somebody else sees the same picture.
        page.get_by_text("Tokens", exact=True).click()
        page.wait_for_function("() => new URLSearchParams(location.search).get('x') === 'Tokens'")
        wait_for_axis(page, "fresh label tokens")
        assert wait_for_curve(page, len(later))[-1] > 10_000
        take_picture(page, screenshots / "live.png")

        assert process.stdin is not None
        process.stdin.close()
        page.get_by_text("Duration", exact=True).wait_for()
    page.get_by_text("finished", exact=True).filter(visible=True).first.wait_for()
    assert_no_errors(page)
    take_picture(page, screenshots / "finished.png")
    assert_differ(screenshots / "before.png", screenshots / "live.png")
    assert_differ(screenshots / "live.png", screenshots / "finished.png")


def test_hostile_names_are_text_and_a_vanished_run_is_a_message(
    workspace: Path, start_dashboard: Callable[[Path], str], page: Page
) -> None:
    name = "a <img src=x onerror='document.title=1'> **b** :red[c]"
    run = write_run(workspace, name, last=40, state="running", message="<img src=x onerror='document.title=2'>")
    page.goto(start_dashboard(workspace))
    open_first_run(page)
    wait_for_curve(page, 40)
    page.get_by_text(name, exact=True).filter(visible=True).first.wait_for()
    for section in ("Evaluation", "Parameters", "Log", "Curves"):
        page.get_by_text(section, exact=True).filter(visible=True).first.click()
        page.wait_for_timeout(500)
        assert_no_errors(page)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() not in ("1", "2")
    shutil.rmtree(run)
    write_run(workspace, "other", last=10)
    page.get_by_text("This run is not in the workspace").wait_for()
    assert_no_errors(page)


def test_a_table_renewed_while_a_run_is_opened_does_not_empty_the_page(
    workspace: Path, start_dashboard: Callable[[Path], str], page_with_a_clock: Page
) -> None:
    page = page_with_a_clock
    write_run(workspace, "live", last=60, planned=5000, state="running")
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    address = start_dashboard(workspace)
    for _ in range(3):
        page.goto(address)
        page.get_by_text("1 run · 1 running · tick one to open it").wait_for()
        # The table's timer fires after the tick was sent and before the server has answered it.
        with sockets[-1].expect_event("framesent"):
            open_first_run(page)
        page.clock.fast_forward(5_000)
        wait_for_curve(page, 20)
        assert_no_errors(page)
