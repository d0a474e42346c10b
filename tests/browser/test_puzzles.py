"""Playground and Puzzles in a real browser: a real solver thinks, and says why it cannot."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dashboard.queries.puzzles import ROWS_FILE
from dashboard.server import ADDRESS
from hrm_engine.data.puzzles.maze.build import build_mazes
from tests.browser.pages import (
    assert_no_errors,
    click_at_rest,
    take_picture,
    tick,
    wait_for_axis,
    wait_for_metric,
    wait_for_script,
)
from tests.browser.server import STOP_LIMIT_S, free_port, running
from tests.dashboard.run_folders import write_puzzle_rows
from tests.tiny_puzzles import PuzzleLab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def lab(workspace: Path, puzzle_source: Path) -> PuzzleLab:
    """A workspace with a tiny solver, trained for real."""
    found = PuzzleLab(workspace, puzzle_source)
    found.trained("tiny")
    return found


def board(page: Page, caption: str) -> Locator:
    """The picture below a caption, once it is drawn."""
    figure = page.locator(".boards figure").filter(has=page.get_by_text(caption, exact=True))
    figure.locator("img").wait_for()
    return figure.locator("img")


def width_px(picture: Locator) -> int:
    """How wide the picture is by itself; 0 if the browser could not read it."""
    found: int = picture.evaluate("image => image.naturalWidth")
    return found


def test_a_solver_is_watched_thinking(
    lab: PuzzleLab, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    page.goto(f"{start_dashboard(lab.root)}/playground")
    page.get_by_text("4 x 4 Sudoku, up to 3 segments in training").wait_for()
    assert width_px(board(page, "Puzzle")) > 100
    page.get_by_role("button", name="Think").click()
    assert width_px(board(page, "After segment 3")) > 100
    board(page, "Solution")
    small = page.locator(".boards").nth(1).locator("img")
    small.nth(2).wait_for()
    assert small.count() == 3
    # The first segment fills the blanks of the puzzle: some of its cells are marked as changed.
    assert "0 cells changed" not in (small.first.get_attribute("alt") or "0 cells changed")
    page.get_by_text("halts by itself").or_(page.get_by_text("not sure enough to halt")).wait_for()
    wait_for_axis(page, "first principal axis")
    assert_no_errors(page)
    take_picture(page, screenshots / "playground.png")

    control = page.get_by_test_id("stSlider").filter(has=page.get_by_text("Segment", exact=True))
    slider = control.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    board(page, "After segment 1")
    assert_no_errors(page)

    page.get_by_role("radiogroup", name="Puzzle from").get_by_text("Text", exact=True).click()
    text = page.get_by_role("textbox")
    text.fill("1234 12")
    text.press("Control+Enter")
    page.get_by_text("a Sudoku has 16, 36 or 81 cells").wait_for()
    page.get_by_role("button", name="Think").wait_for(state="detached")
    assert_no_errors(page)
    text.fill("1.3.\n34..\n..43\n.3.1")
    text.press("Control+Enter")
    page.get_by_role("button", name="Think").click()
    board(page, "After segment 3")
    assert_no_errors(page)


def test_a_maze_is_drawn_by_clicking(lab: PuzzleLab, start_dashboard: Callable[[Path], str], page: Page) -> None:
    build_mazes(
        output_dir=lab.root / "training_data/puzzles/mazes", size=6, count=16, test_count=8, min_path=4, loops=0.0
    )
    lab.train("mazes", data_path="training_data/puzzles/mazes")
    page.goto(f"{start_dashboard(lab.root)}/playground?bundle=runs/mazes")
    page.get_by_text("Drawing", exact=True).click()
    plot = page.locator(".js-plotly-plot")
    plot.wait_for()
    page.get_by_text("Goal", exact=True).click()
    places = "() => (document.querySelector('.js-plotly-plot')?.data?.[0].text ?? []).map((name, at) => [name, at])"
    before = page.evaluate(places)
    free = next(at for name, at in before if name == "free")
    # Clicked where plotly drew it: the cell has no element of its own name.
    click_at_rest(page, plot.locator(".scatterlayer .points path").nth(free))
    wait_for_script(page, f"at => (({places})()[at] || [])[0] === 'goal'", free)
    after = page.evaluate(places)
    assert [name for name, _ in after].count("goal") == 1
    assert_no_errors(page)


def test_accuracy_by_difficulty_and_a_failure_drawn(
    lab: PuzzleLab, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    write_puzzle_rows(lab.run_dir("tiny") / ROWS_FILE, 16, ratings=3)
    page.goto(f"{start_dashboard(lab.root)}/puzzles")
    wait_for_axis(page, "difficulty rating")
    wait_for_axis(page, "segments until it halts")
    wait_for_metric(page, "Puzzles", "16")
    tick(page, 0)
    assert width_px(board(page, "Answer")) > 100
    board(page, "Solution")
    take_picture(page, screenshots / "puzzles.png")
    page.get_by_text("Watch it think in the Playground").click()
    page.wait_for_url("**/playground?bundle=*")
    page.get_by_role("button", name="Think").wait_for()
    assert_no_errors(page)


def test_ctrl_c_ends_the_command_without_a_complaint(lab: PuzzleLab, tmp_path: Path, page: Page) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "lab", "dashboard", "--no-open", "--port", str(port)]
    with running(command, port, log=log) as server:
        page.goto(f"http://{ADDRESS}:{port}/run")
        wait_for_axis(page, "optimizer step")
        page.goto(f"http://{ADDRESS}:{port}/playground")
        page.get_by_role("button", name="Think").click()
        board(page, "After segment 3")
        server.send_signal(signal.SIGINT)
        assert server.wait(STOP_LIMIT_S) == 0
    assert "leaked" not in log.read_text()
