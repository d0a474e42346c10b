"""What browser tests read off a page of the dashboard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, JSHandle, Locator, Page

_DRAWN = ".js-plotly-plot, [data-testid=stDataFrame], [data-testid=stMetric], .boards img, .written, [role=dialog]"
_LEAST_COLOURS = 8
_ASK_MS = 100.0

_CURVE = """
name => {
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    const trace = (plot._fullData || []).find(candidate => candidate.name === name);
    if (trace) return Array.from(trace.x, Number);
  }
  return [];
}
"""


def wait_for_script(page: Page, script: str, argument: object = None) -> JSHandle:
    """Wait until a function in JavaScript gives something, which is returned.

    Not asked at every frame, as by default: the browser would draw all the time.
    """
    return page.wait_for_function(script, arg=argument, polling=_ASK_MS)


def wait_for_curve(page: Page, num_points: int, name: str = "training", beyond: float = -1.0) -> list[float]:
    """Wait until a drawn curve has at least ``num_points`` points and ends right of ``beyond``; where they lie.

    Of a long curve only so many points are drawn, so that it gets no further ones.
    """
    # Asked and answered in one call: between two, the figure may be about to be drawn again and not be there.
    script = f"""([name, least, beyond]) => {{
      const xs = ({_CURVE})(name);
      return xs.length >= least && xs.at(-1) > beyond ? xs : null;
    }}"""
    places: list[float] = wait_for_script(page, script, [name, num_points, beyond]).json_value()
    return places


def wait_for_axis(page: Page, title: str) -> None:
    """Wait until some figure has ``title`` below its horizontal axis."""
    wait_for_script(
        page,
        """title => Array.from(document.querySelectorAll('.js-plotly-plot')).some(
             plot => plot._fullLayout?.xaxis?.title?.text === title)""",
        title,
    )


def metric(page: Page, label: str) -> str:
    """The value on one of the cards."""
    card = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return card.get_by_test_id("stMetricValue").inner_text().strip()


def wait_for_metric(page: Page, label: str, value: str) -> None:
    """Wait until the card of that label shows that value."""
    card = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    card.get_by_test_id("stMetricValue").get_by_text(value, exact=True).wait_for()


def wait_until_drawn(page: Page) -> None:
    """Wait until the server has drawn the whole page: before, a button may be that of what was shown before.

    Only after something new has been seen: a click takes a moment to the server, and so does the first of all pages.
    """
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def click_at_rest(page: Page, place: Locator) -> None:
    """Click into the middle of something that has no element of its own to be clicked, once it stays where it is."""
    before: FloatRect | None = None
    while (box := place.bounding_box()) is None or box != before:
        before = box
        page.wait_for_timeout(200)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def assert_no_errors(page: Page) -> None:
    """No traceback and no error box is on the page."""
    assert page.get_by_test_id("stException").count() == 0
    assert page.get_by_test_id("stAlertContentError").count() == 0


def open_first_run(page: Page) -> None:
    """Tick the first row of the table of runs."""
    tick(page, 0)


def tick(page: Page, row: int) -> None:
    """Tick a row of the first table, counted from 0."""
    table = page.get_by_test_id("stDataFrame").first
    table.locator("canvas").first.wait_for()
    wait_until_drawn(page)
    # The table is drawn on a canvas: the box of the first row is below the titles, at the left edge.
    table.click(position={"x": 17, "y": 54 + 36 * row})


def take_picture(page: Page, path: Path, limit_s: float = 30.0) -> None:
    """A screenshot; every figure, table, number, board and dialog that the page has is drawn in it, not left blank.

    A page that moves on is taken again while it draws: what shows nothing for ``limit_s`` fails.
    """
    end = time.monotonic() + limit_s
    while (blank := _blank_box(page, path)) is not None and time.monotonic() < end:
        page.wait_for_timeout(200)
    assert blank is None, f"{path.name}: nothing is drawn at {blank}"


def _blank_box(page: Page, path: Path) -> tuple[float, ...] | None:
    """The first box of a new picture that something should be drawn in and is not."""
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as file:
        picture = file.convert("RGB")
    boxes: list[list[float]] = page.locator(_DRAWN).evaluate_all(
        """elements => elements.map(element => [element, element.getBoundingClientRect()]).filter(([element, box]) => {
             // what is in sight as a whole, with nothing over it
             const top = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
             return top && (element.contains(top) || top.contains(element)) && box.top >= 0
               && box.bottom <= innerHeight;
           }).map(([, box]) => [box.left, box.top, box.right, box.bottom])"""
    )
    for left, top, right, bottom in boxes:
        colours = picture.crop((round(left), round(top), round(right), round(bottom))).getcolors(1 << 24)
        if len(colours or []) < _LEAST_COLOURS:
            return left, top, right, bottom
    return None if boxes else (0, 0, *picture.size)


def assert_differ(one: Path, other: Path) -> None:
    """Two screenshots do not show the same."""
    with Image.open(one) as first, Image.open(other) as second:
        assert first.tobytes() != second.tobytes(), f"{one.name} and {other.name} are the same picture"
