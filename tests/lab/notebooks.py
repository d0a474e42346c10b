"""Notebooks for the tests of the runner, written where they are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from hrm_engine.store.paths import Workspace
from lab.runner.execute import plan_run, run_notebook
from lab.runner.kernel import processes_of
from lab.runner.parameters import TAG
from lab.runner.recipes import find_recipe
from lab.runner.record import RunRecord

# A process that has left the kernel's group, as a daemon would.
CHILD = """import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""


def write_notebook(path: Path, *cells: str, parameters: str | None = None) -> Path:
    """A notebook of these cells; one that begins with '#' and a space is markdown."""
    made = [new_markdown_cell(text) if text.startswith("# ") else new_code_cell(text) for text in cells]
    if parameters is not None:
        made.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made), path)
    return path


def run(notebook: Path, workspace: Path, given: Mapping[str, Any] | None = None, **options: Any) -> RunRecord:
    """Plan and run a notebook in a workspace."""
    where = Workspace(workspace)
    return run_notebook(plan_run(find_recipe(str(notebook), where), given or {}), workspace=where, **options)


def run_cells(recipe: str, workspace: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Plan a recipe and run its cells in this process: what its values are refused for needs no kernel."""
    plan = plan_run(find_recipe(recipe, Workspace(workspace)), given)
    names = dict(plan.parameters)
    for cell in plan.notebook.cells:
        if cell.cell_type == "code" and TAG not in cell.metadata.get("tags", ()):
            exec(cell.source, names)
    return names


def saved(record: RunRecord) -> dict[str, Any]:
    """The content of run.json."""
    return json.loads((record.folder / "run.json").read_text(encoding="utf8"))


def executed(record: RunRecord) -> nbformat.NotebookNode:
    """The executed notebook, which must be valid."""
    notebook = nbformat.read(record.folder / record.notebook, as_version=4)
    nbformat.validate(notebook)
    return notebook


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell printed to stdout."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def left_processes(record: RunRecord) -> list[psutil.Process]:
    """Processes of a run that still live, wherever they have gone."""
    return [process for process in processes_of(record.run_id) if process.is_running()]
