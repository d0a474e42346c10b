"""The page of a run shows everything offline, and nothing that a cell puts out can act in it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lab.runner.record import CellError, RunRecord
from lab.runner.report import report_html
from lab.runner.sanitize import clean_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FIGURE = {
    "data": [{"type": "scatter", "x": [1, 2, 3], "y": [3, 1, 2]}],
    "layout": {"title": {"text": "</script><script>document.title='figure'</script>"}},
}
HOSTILE = [
    {"text/html": "<script>document.title='html'</script><img src=x onerror=\"document.title='img'\"><b>bold</b>"},
    {"text/html": "<iframe src='https://example.org'></iframe><form action='https://example.org'><input></form>"},
    {"application/javascript": "document.title='javascript'", "text/plain": "plain instead"},
    {"text/vnd.mermaid": "</pre><script>document.title='mermaid'</script>", "text/plain": "no diagram"},
    {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'><script>document.title='svg'</script></svg>"},
    {"text/markdown": "[click](javascript:alert(1)) <script>document.title='markdown'</script>"},
    {"text/latex": "</div><script>document.title='latex'</script>"},
    {"image/png": "\"><script>document.title='png'</script>"},
]


def record(tmp_path: Path, **changed: object) -> RunRecord:
    fields = {
        "folder": run_folder(tmp_path),
        "run_id": "a-1",
        "recipe": "<script>document.title='recipe'</script>",
        "source": "a.ipynb",
        "notebook": "a.ipynb",
        "report": None,
        "parameters": {"name": "<img src=x onerror=alert(1)>"},
        "hash": "0",
        "started": "now",
        "summary": {"sample": "<b>text</b>", "loss": 1.23456},
    }
    ended = {"status": "finished", "ended": "now", "seconds": 1.0}
    return RunRecord(**{**fields, **ended, **changed})  # type: ignore[arg-type]


def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "a-1").mkdir(exist_ok=True)
    return tmp_path / "a-1"


def page(tmp_path: Path, *outputs: dict[str, object], markdown: str = "# Title") -> str:
    displayed = [new_output("display_data", data=data) for data in outputs]
    displayed.append(
        new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <script>document.title='out'</script>")
    )
    cells = [new_markdown_cell(markdown), new_code_cell("x = '<script>'", outputs=displayed, execution_count=1)]
    return report_html(new_notebook(cells=cells), record(tmp_path))


def scripts(html: str) -> list[str]:
    return [str(tag.string) for tag in BeautifulSoup(html, "html.parser")("script") if not tag.get("type")]


def test_nothing_of_the_outputs_can_act(tmp_path: Path) -> None:
    html = page(tmp_path, *HOSTILE, markdown="# Title\n<script>document.title='cell'</script><a onclick='x()'>a</a>")
    soup = BeautifulSoup(html, "html.parser")
    assert soup("script") == []
    assert soup(["iframe", "form", "object", "embed", "link"]) == []
    assert [name for tag in soup(True) for name in tag.attrs if name.startswith("on")] == []
    assert [tag["href"] for tag in soup("a") if tag.get("href", "").startswith("javascript")] == []
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'none'" in policy
    assert "plain instead" in html
    assert "no diagram" in html
    assert "document.title='out'" in soup.find("main").get_text()


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    html = page(tmp_path, {"application/vnd.plotly.v1+json": FIGURE}, *HOSTILE)
    soup = BeautifulSoup(html, "html.parser")
    places = [tag.get("src") or tag.get("href") for tag in soup(["img", "script", "link"])]
    (library,) = tmp_path.glob("plotly-*.min.js")
    assert [place for place in places if place and not place.startswith("data:")] == [f"../{library.name}"]


def test_runs_share_what_draws_their_figures(tmp_path: Path) -> None:
    html = page(tmp_path, {"application/vnd.plotly.v1+json": FIGURE})
    assert len(html) < 500_000
    (library,) = tmp_path.glob("plotly-*.min.js")
    before = library.stat().st_mtime_ns
    page(tmp_path, {"application/vnd.plotly.v1+json": FIGURE})
    assert library.stat().st_mtime_ns == before


def test_results_come_first_and_headings_are_linked(tmp_path: Path) -> None:
    failed = new_code_cell("broken()", execution_count=2)
    cells = [new_markdown_cell("# A & B\n## Two\n### Three"), new_code_cell("x = 1", execution_count=1), failed]
    error = CellError(3, "broken()", "ValueError", "no")
    times = {"started": "2026-12-01T09:31:07.123+00:00", "seconds": 159.0}
    soup = BeautifulSoup(report_html(new_notebook(cells=cells), record(tmp_path, error=error, **times)), "html.parser")
    assert [block.has_attr("open") for block in soup("details", class_="hrm-code")] == [False, True]
    links = soup.find("nav", class_="hrm-contents")("a")
    assert [link.get_text() for link in links] == ["A & B", "Two", "Three"]
    assert all(soup.find(id=link["href"].removeprefix("#")) for link in links)
    assert "began 1 December 2026, 09:31 UTC · took 2:39" in soup.find("div", class_="hrm-run").get_text()


def test_figures_are_drawn_by_our_own_scripts_only(tmp_path: Path) -> None:
    html = page(tmp_path, {"application/vnd.plotly.v1+json": FIGURE, "text/html": "<script>1</script>"}, *HOSTILE)
    library, drawing = scripts(html)
    assert library == "None", "a file"
    digest = base64.b64encode(hashlib.sha256(drawing.encode()).digest()).decode()
    assert f"script-src 'self' file: 'sha256-{digest}'\"" in html
    data = BeautifulSoup(html, "html.parser").find("script", class_="hrm-figure")
    assert json.loads(data.string) == FIGURE


def test_plain_content_is_shown_as_it_is(tmp_path: Path) -> None:
    table = "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    html = page(tmp_path, {"text/html": f"<style>th {{color: red}}</style>{table}"}, markdown="# Title\n\n* one\n* two")
    soup = BeautifulSoup(html, "html.parser")
    assert soup.find("h1", id="Title").get_text().startswith("Title")
    assert [item.get_text() for item in soup("li")] == ["one", "two"]
    assert soup.find("td").get_text()
    assert "color: red" not in soup.find("main").get_text()
    assert soup.find("span", class_="ansi-red-fg").get_text() == "red"


def test_widgets_are_shown_as_what_stands_beside_them(tmp_path: Path) -> None:
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {"model_name": "HTMLModel"}}}}
    bundle = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/html": "<b>still</b>"}
    notebook = new_notebook(
        cells=[new_code_cell("viewer", outputs=[new_output("display_data", data=bundle)])], metadata={"widgets": state}
    )
    html = report_html(notebook, record(tmp_path))
    assert "<b>still</b>" in html
    assert "HTMLModel" not in html
    assert BeautifulSoup(html, "html.parser")("script") == []
    assert notebook.metadata.widgets == state, "the notebook keeps them"


def test_the_head_of_the_page_tells_of_the_run(tmp_path: Path) -> None:
    head = BeautifulSoup(page(tmp_path), "html.parser").find("div", class_="hrm-run").get_text()
    for told in ("finished", "a-1", "<b>text</b>", "1.235", "<img src=x onerror=alert(1)>"):
        assert told in head


def test_the_failing_cell_stands_on_top(tmp_path: Path) -> None:
    wrong = new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[31mtrace\x1b[0m"])
    cells = [new_code_cell("fine = 1"), new_code_cell("broken()", outputs=[wrong], execution_count=2)]
    error = CellError(2, "broken()", "ValueError", "no <b>")
    html = report_html(new_notebook(cells=cells), record(tmp_path, status="failed", error=error))
    box = BeautifulSoup(html, "html.parser").find("div", class_="hrm-error")
    assert "ValueError in cell 2, In [2]" in " ".join(box.get_text().split())
    assert "broken()" in box.get_text()
    assert "no <b>" in box.get_text()
    assert "trace" in box.get_text()
    link = box.find("a")["href"]
    assert BeautifulSoup(html, "html.parser").find(id=link.removeprefix("#").replace("%3D", "="))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a <em>b</em></p>", "<p>a <em>b</em></p>"),
        ("a<script>b</script>c", "ac"),
        ('<img src="https://example.org/x.png">', "<img>"),
        ('<img src="data:image/png;base64,AAAA">', '<img src="data:image/png;base64,AAAA">'),
        ('<a href="data:text/html,x">y</a>', "<a>y</a>"),
        ('<a href="https://example.org">y</a>', '<a href="https://example.org">y</a>'),
        ('<p style="color: red; position: fixed">x</p>', '<p style="color: red;">x</p>'),
        ("1 < 2", "1 &lt; 2"),
        (b"<b>bytes</b>", "<b>bytes</b>"),
    ],
)
def test_cleaning(html: object, expected: str) -> None:
    assert clean_html(html) == expected


@pytest.mark.browser
def test_a_browser_draws_the_figure_and_runs_nothing_else(tmp_path: Path, browser: Browser) -> None:
    file = run_folder(tmp_path) / "page.html"
    file.write_text(page(tmp_path, {"application/vnd.plotly.v1+json": FIGURE}, *HOSTILE), encoding="utf8")
    requests: list[str] = []
    problems: list[str] = []
    view = browser.new_page()
    view.on("request", lambda request: requests.append(request.url))
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.goto(file.as_uri())
    view.wait_for_selector("svg.main-svg path.js-line")
    title = view.title()
    view.close()
    assert title == "a-1"
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
