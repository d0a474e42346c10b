"""The trace viewer in a real JupyterLab: the slider moves the board, without Python having a part in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from ipywidgets.embed import dependency_state
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_notebook, new_output

from hrm_engine.store.paths import Workspace
from lab.cli.dashboard import LOOPBACK, notebook_command
from lab.widgets import TraceViewer
from tests.browser.server import free_port, running
from tests.lab.traces import SOLUTION, sudoku_trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

STATE = "application/vnd.jupyter.widget-state+json"


def executed_notebook(viewer: TraceViewer) -> nbformat.NotebookNode:
    """A notebook as a batch run leaves it: the output of a cell, and the states of its widgets."""
    bundle: dict[str, Any] = viewer._repr_mimebundle_()
    cell = new_code_cell("viewer", execution_count=1, outputs=[new_output("display_data", data=bundle)])
    widgets = {STATE: {"version_major": 2, "version_minor": 0, "state": dependency_state(viewer)}}
    # JupyterLab asks for a kernel where none is named, and restores no widget before.
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=[cell], metadata={"widgets": widgets, "kernelspec": kernel})


def test_the_slider_of_an_executed_notebook_shows_the_segments(
    workspace: Path, tmp_path: Path, browser: Browser, screenshots: Path
) -> None:
    notebook = executed_notebook(TraceViewer(sudoku_trace(), solution=SOLUTION))
    nbformat.write(notebook, workspace / "trace.ipynb")
    folders = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")}
    # JupyterLab shows widgets of notebooks that their user trusts; of others what stands beside them.
    Path(folders["JUPYTER_DATA_DIR"]).mkdir()
    notary = NotebookNotary(data_dir=folders["JUPYTER_DATA_DIR"])
    notary.sign(nbformat.read(workspace / "trace.ipynb", as_version=4))
    notary.store.close()
    port = free_port()
    command = notebook_command(Workspace(workspace), port=port, open_browser=False)
    environment = {**os.environ, **folders, "JUPYTER_TOKEN": "known"}
    with running(command, port, log=tmp_path / "lab.log", environment=environment, folder=workspace):
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"http://{LOOPBACK}:{port}/lab/tree/trace.ipynb?token=known")
        output = page.locator(".jp-OutputArea")
        words = output.locator("svg text")
        words.filter(has_text="segment 1").wait_for()
        words.filter(has_text="halt 0.25, 7 changed").wait_for()
        handle = output.locator(".noUi-handle")
        handle.focus()
        handle.press("ArrowRight")
        words.filter(has_text="segment 2").wait_for()
        words.filter(has_text="all right").wait_for()
        words.filter(has_text="halts here").wait_for()
        changed = output.locator('[data-mark="changed"]:visible')
        changed.wait_for()
        assert changed.count() == 1
        page.screenshot(path=screenshots / "slider.png")
        handle.press("Home")
        words.filter(has_text="the puzzle").wait_for()
        page.close()
