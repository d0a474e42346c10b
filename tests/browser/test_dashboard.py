"""The dashboard in a real browser, on run folders that change while it is open."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from hrm_engine.store.status import RunStatus, write_status
from tests.browser.pages import (
    assert_differ,
    assert_no_errors,
    metric,
    open_first_run,
    take_picture,
    wait_for_axis,
    wait_for_curve,
    wait_for_script,
    wait_until_drawn,
)
from tests.dashboard.run_folders import append_events, events, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


# Once `due` is called, the timers of the page fire right after the next message to the server.
TIMERS = """
const timers = new Map(), set = setInterval, clear = clearInterval, send = WebSocket.prototype.send;
let calls = [];
window.due = () => { calls = [...timers.values()]; return calls.length; };
window.setInterval = (call, ...rest) => {
  const timer = set(call, ...rest);
  timers.set(timer, call);
  return timer;
};
window.clearInterval = timer => { timers.delete(timer); clear(timer); };
WebSocket.prototype.send = function (message) {
  send.call(this, message);
  calls.splice(0).forEach(call => call());
};
"""


@contextmanager
def trainer(run: Path, step: int) -> Iterator[Event]:
    """Steps that go on from ``step``, one every 50 ms; the run is finished when the event is set."""
    end = Event()

    def write() -> None:
        last = step
        while not end.wait(0.05):
            last += 1
            append_events(run / "metrics.jsonl", events(last, last))
            write_status(run, RunStatus.of_this_process("running", last, "training"))
        write_status(run, RunStatus.of_this_process("finished", last, "finished"))

    thread = Thread(target=write)
    thread.start()
    try:
        yield end
    finally:
        end.set()
        thread.join()


def test_the_curve_moves_while_a_trainer_writes(
    workspace: Path, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    write_run(workspace, "earlier", last=100)
    run = write_run(workspace, "live", last=60, planned=5000, state="running")
    address = start_dashboard(workspace)
    with trainer(run, 60) as end:
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
        wait_for_script(page, "() => new URLSearchParams(location.search).get('x') === 'Tokens'")
        wait_for_axis(page, "fresh label tokens")
        assert wait_for_curve(page, len(later))[-1] > 10_000
        take_picture(page, screenshots / "live.png")

        end.set()
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
    sections = {
        "Evaluation": "Loss by segment",
        "Parameters": "Name, value or group",
        "Log": "To follow it in a terminal",
        "Curves": "Smoothing (steps)",
    }
    for section, shown in sections.items():
        page.get_by_text(section, exact=True).filter(visible=True).first.click()
        page.get_by_text(shown).or_(page.get_by_placeholder(shown)).first.wait_for()
        wait_until_drawn(page)
        assert_no_errors(page)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() not in ("1", "2")
    shutil.rmtree(run)
    write_run(workspace, "other", last=10)
    page.get_by_text("This run is not in the workspace").wait_for()
    assert_no_errors(page)


def test_a_table_renewed_while_a_run_is_opened_does_not_empty_the_page(
    workspace: Path, start_dashboard: Callable[[Path], str], page: Page
) -> None:
    write_run(workspace, "live", last=60, planned=5000, state="running")
    address = start_dashboard(workspace)
    tools = page.context.new_cdp_session(page)
    tools.send("Page.enable")
    script = tools.send("Page.addScriptToEvaluateOnNewDocument", {"source": TIMERS})
    for _ in range(3):
        page.goto(address)
        page.get_by_text("1 run · 1 running · tick one to open it").wait_for()
        # The table's timer fires after the tick was sent and before the server has answered it.
        assert page.evaluate("() => due()") > 0
        open_first_run(page)
        wait_for_curve(page, 20)
        assert_no_errors(page)
    tools.send("Page.removeScriptToEvaluateOnNewDocument", script)
