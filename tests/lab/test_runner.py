"""Notebook runs with real kernels: what they leave, and what happens when a cell misbehaves."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from hrm_engine.errors import StorageError
from hrm_engine.store.paths import Workspace
from lab.runner.execute import Progress, plan_run
from lab.runner.recipes import find_recipe
from lab.runner.record import run_hash
from tests.lab.notebooks import CHILD, executed, left_processes, printed, run, saved, write_notebook


def test_a_run_leaves_notebook_page_and_record(workspace: Path) -> None:
    # Braces in the path, and in a value: papermill would fill in such names if it were let to.
    notebook = write_notebook(
        workspace / "{x.__class__}" / "hello.ipynb",
        "# Greeting",
        "import os, sys\nprint(steps, lr, name)\nprint(sys.executable)",
        "print(os.environ['HRM_LAB_ROOT'])\nprint(os.getcwd())",
        "display({'application/vnd.hrm-lab.run+json': {'summary': [['loss', 1.5], ['sample', 'text']], "
        "'bundles': ['artifacts/brains/actv1/a']}, 'text/plain': 'told'}, raw=True)",
        parameters="steps: int = 3\nlr: float = 0.5\nname: str = 'a'\n",
    )
    seen: list[Progress] = []
    record = run(notebook, workspace, {"lr": "1e-3", "name": "{x.__class__}"}, observer=seen.append)

    assert record.status == "finished"
    content = saved(record)
    assert content["parameters"] == {"steps": 3, "lr": 0.001, "name": "{x.__class__}"}
    assert content["summary"] == {"loss": 1.5, "sample": "text"}
    assert content["bundles"] == ["artifacts/brains/actv1/a"]
    assert content["schema_version"] == 1
    assert content["error"] is None
    assert len(content["hash"]) == 64
    assert record.folder.parent == workspace / "artifacts" / "notebooks"
    assert sorted(path.name for path in record.folder.iterdir()) == [
        "hello.html",
        "hello.ipynb",
        "kernel.log",
        "output.log",
        "run.json",
    ]
    told = "".join(printed(cell) for cell in executed(record).cells if cell.cell_type == "code").splitlines()
    assert told[0] == "3 0.001 {x.__class__}"
    assert Path(told[1]).resolve() == Path(sys.executable).resolve()
    assert told[2:] == [str(workspace), str(notebook.parent)]
    assert (record.folder / "output.log").read_text().splitlines() == told
    assert "Greeting" in (record.folder / "hello.html").read_text(encoding="utf8")
    assert [item.text for item in seen if item.kind == "cell"] == ["Parameters", "Parameters", *["Greeting"] * 4]
    assert left_processes(record) == []


def test_parameters_that_may_be_none_are_not_called_unknown(
    workspace: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    notebook = write_notebook(
        workspace / "a.ipynb", "print(steps, name)", parameters="steps: int | None = None\nname = ''"
    )
    record = run(notebook, workspace, {"steps": "3"})
    assert printed(executed(record).cells[-1]) == "3 \n"
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_a_cell_that_raises_is_named_and_the_rest_is_not_run(workspace: Path) -> None:
    notebook = write_notebook(workspace / "bad.ipynb", "print('fine')", "# Dividing", "x = 0\n1 / x", "print('never')")
    record = run(notebook, workspace)
    error = saved(record)["error"]
    assert record.status == "failed"
    kind = {"type": "ZeroDivisionError", "message": "division by zero"}
    assert error == {"cell": 3, "source": "1 / x", "line": 2, **kind}
    cells = executed(record).cells
    assert len(cells) == 4
    assert cells[3].execution_count is None
    assert [cell.metadata.papermill.status for cell in cells] == ["completed", "completed", "failed", "pending"]
    page = (record.folder / "bad.html").read_text(encoding="utf8")
    top = page[page.index("<main>") : page.index("Dividing")]
    assert "ZeroDivisionError" in top
    assert "1 / x" in top
    assert left_processes(record) == []


@pytest.mark.parametrize(
    ("cell", "line", "source"),
    [
        ("def f():\n    y = 1\n    raise ValueError(y)\n\nf()", 3, "raise ValueError(y)"),
        ("x = [\n    1,\n    1 / 0,\n]", 3, "1 / 0,"),
        ("x = 1\ny = = 2", 2, "y = = 2"),
        ("x = 1\nraise SystemExit(3)", None, "x = 1"),
    ],
)
def test_the_line_that_failed_is_named(workspace: Path, cell: str, line: int | None, source: str) -> None:
    error = run(write_notebook(workspace / "bad.ipynb", "helper = 1", cell), workspace).error
    assert error is not None
    assert (error.cell, error.line, error.source) == (2, line, source)


def test_a_dead_kernel_is_named_and_leaves_no_process(workspace: Path) -> None:
    notebook = write_notebook(workspace / "die.ipynb", "print('fine')", CHILD + "import os\nos._exit(9)")
    record = run(notebook, workspace)
    error = saved(record)["error"]
    assert (record.status, error["cell"], error["type"]) == ("failed", 2, "KernelDied")
    assert "process ended" in error["message"]
    assert printed(executed(record).cells[0]) == "fine\n"
    assert "KernelDied" in (record.folder / "die.html").read_text(encoding="utf8")
    assert left_processes(record) == []


def test_a_cell_that_hangs_is_stopped_and_named(workspace: Path) -> None:
    notebook = write_notebook(workspace / "hang.ipynb", CHILD + "import time\ntime.sleep(600)")
    record = run(notebook, workspace, cell_timeout_s=2)
    error = saved(record)["error"]
    assert (record.status, error["cell"], error["type"]) == ("failed", 1, "CellTimeout")
    assert "within 2 seconds" in error["message"]
    assert left_processes(record) == []


def test_printing_without_end_is_cut_in_the_notebook_and_whole_on_disk(workspace: Path) -> None:
    notebook = write_notebook(
        workspace / "loud.ipynb",
        "line = 'x' * 999\nfor _ in range(100_000):\n    print(line)",
        "print('after')",
        "print('y' * 20_001, end='')",
    )
    before = psutil.Process().memory_info().rss
    record = run(notebook, workspace, output_cap_chars=20_000)
    assert record.status == "finished"
    assert (record.folder / "output.log").stat().st_size == 100_000_000 + len("after\n") + 20_001
    loud, after, edge = executed(record).cells
    assert len(printed(loud)) < 20_200
    assert "cut after 20,000 characters; all of it is in output.log" in printed(loud)
    assert printed(after) == "after\n"
    assert printed(edge).startswith("y" * 20_000 + "\n[cut")
    assert (record.folder / "loud.html").stat().st_size < 1_000_000
    assert psutil.Process().memory_info().rss - before < 100_000_000


def test_large_outputs_and_errors_are_cut(workspace: Path) -> None:
    notebook = write_notebook(
        workspace / "rich.ipynb",
        "for _ in range(30):\n    display({'text/plain': 'z' * 1_000_000}, raw=True)",
        "raise ValueError('w' * 2_000_000)",
    )
    record = run(notebook, workspace)
    assert record.error is not None
    assert (record.error.cell, record.error.type) == (2, "ValueError")
    assert len(record.error.message) < 11_000
    rich, wrong = executed(record).cells
    assert "outputs of this cell are cut here" in rich.outputs[-1].text
    assert len(rich.outputs) == 10
    assert len(str(wrong.outputs)) < 50_000


def test_the_hash_tells_whether_it_is_the_same_run(workspace: Path) -> None:
    notebook = write_notebook(workspace / "h.ipynb", "print(a)", parameters="a: int = 1\n")
    recipe = find_recipe(str(notebook), Workspace(workspace))

    def of(**given: object) -> str:
        plan = plan_run(recipe, given)
        return run_hash(plan.notebook.cells, plan.parameters)

    assert of() == of(a="1") == of(a=1)
    assert of(a="2") != of()


def test_a_folder_that_cannot_be_written_is_refused_before_a_kernel_starts(workspace: Path) -> None:
    (workspace / "artifacts" / "notebooks").write_text("in the way")
    notebook = write_notebook(workspace / "a.ipynb", f"open({str(workspace / 'mark')!r}, 'w')")
    with pytest.raises(StorageError, match="notebooks"):
        run(notebook, workspace)
    assert not (workspace / "mark").exists()
    assert (workspace / "artifacts" / "notebooks").read_text() == "in the way"
