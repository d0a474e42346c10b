"""Run a notebook: check, execute in a fresh kernel, and leave a folder that tells what happened.

``artifacts/notebooks/<run-id>/`` holds the executed notebook, its HTML, ``run.json``, ``output.log`` (all that the
cells printed) and ``kernel.log`` (the kernel's own messages). Bad input is refused before the folder exists.
"""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color
from papermill.execute import remove_error_markers

from hrm_engine.errors import NotebookError
from hrm_engine.reading import load_json, told_by
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import ensure_writable, write_text
from hrm_engine.store.paths import Workspace
from lab.runner.engine import NAME, LabEngine, Session, failure_of
from lab.runner.kernel import KERNEL_NAME, end_processes, kernel_environment
from lab.runner.outstream import DEFAULT_CAP
from lab.runner.parameters import Parameter, check_values, read_parameters
from lab.runner.recipes import Recipe
from lab.runner.record import CellError, RunRecord, Status, new_run_id, read_summary, run_hash
from lab.runner.report import report_html

OUTPUT_LOG = "output.log"
KERNEL_LOG = "kernel.log"
_KERNEL_LOG_TAIL_CHARS = 2000


@dataclass(frozen=True)
class Progress:
    """One step of a run: a cell begins (``text`` is its heading), or printed something (``text``)."""

    cell: int
    num_cells: int
    kind: str
    text: str


@dataclass(frozen=True)
class Plan:
    """A run whose notebook and parameters have passed every check."""

    recipe: Recipe
    notebook: nbformat.NotebookNode
    declared: dict[str, Parameter]
    given: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with the value that it will have."""
        return {name: self.given.get(name, parameter.default) for name, parameter in self.declared.items()}


def plan_run(recipe: Recipe, given: Mapping[str, Any]) -> Plan:
    """Read the notebook and check the parameters (text is read by the declared types).

    Raises:
        NotebookError: the notebook cannot be read or is not for Python; a parameter is unknown, of another type, out
            of range, or not what the recipe says that it must be.
    """
    notebook = read_notebook(recipe.notebook)
    declared = read_parameters(notebook, recipe.notebook.name)
    values = check_values(declared, recipe.parameters, f"recipe {recipe.name}")
    values |= check_values(declared, given, recipe.notebook.name)
    plan = Plan(recipe, notebook, declared, values)
    recipe.check(plan.parameters)
    return plan


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook for Python in the present format, whatever its own. Raises NotebookError."""
    content = load_json(path, NotebookError)
    if not isinstance(content, dict) or not {"cells", "worksheets"} & content.keys():
        raise NotebookError(f"{path} is not a notebook: it has no cells")
    with told_by(lambda why: NotebookError(f"{path} is not a notebook that can be run: {why}")):
        _make_up_for(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is put right here
            # What comes of format 3 is made of another class, which papermill takes for a path.
            notebook = nbformat.from_dict(nbformat.convert(nbformat.reader.reads(json.dumps(content)), 4))
            # Older notebooks have cells without ids; without them the executed one would not be valid.
            _, notebook = nbformat.validator.normalize(notebook)
        nbformat.validate(notebook)
        kernel, about = (notebook.metadata.get(name, {}) for name in ("kernelspec", "language_info"))
        language = str(kernel.get("language") or about.get("name") or "python")
    # "ipython" stands in notebooks of some editors
    if not language.lower().startswith(("python", "ipython")):
        raise NotebookError(f"{path} is written in {language}; the runner runs Python notebooks")
    return notebook


def _make_up_for(content: dict[str, Any]) -> None:
    """Put in what other programs leave out and nobody misses: empty metadata, sources and outputs of cells."""
    if not isinstance(content.setdefault("metadata", {}), dict):
        raise ValueError("its metadata is no object")
    kernel = content["metadata"].get("kernelspec")
    if isinstance(kernel, dict) and "display_name" not in kernel:
        kernel["display_name"] = kernel.setdefault("name", KERNEL_NAME)
    cells = content.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("its cells are no list of objects")
    for cell in cells:
        cell.setdefault("metadata", {})
        cell.setdefault("source", "")
        if cell.get("cell_type") == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)


def run_notebook(
    plan: Plan,
    *,
    workspace: Workspace,
    cell_timeout_s: int | None = None,
    output_cap_chars: int = DEFAULT_CAP,
    observer: Callable[[Progress], None] | None = None,
) -> RunRecord:
    """Execute a plan and return its record; a failing notebook is a record with status ``failed``, not an exception.

    Args:
        cell_timeout_s: longest time of one cell in seconds.
        output_cap_chars: characters of each stream of one cell that reach the notebook.
        observer: called with every cell and what is printed, in this thread.

    Raises:
        StorageError: the run's folder cannot be written.
        KeyboardInterrupt, SystemExit: passed on after the kernel has ended and the record says ``stopped``.
    """
    run_id = new_run_id(plan.recipe.name)
    folder = workspace.notebooks.absolute() / run_id
    ensure_writable(folder)
    record = RunRecord(
        folder=folder,
        run_id=run_id,
        recipe=plan.recipe.name,
        source=str(plan.recipe.notebook),
        notebook=f"{plan.recipe.name}.ipynb",
        parameters=plan.parameters,
        hash=run_hash(plan.notebook.cells, plan.parameters),
        started=now_iso(),
    )
    record.save()
    began = time.monotonic()
    error: CellError | None = None
    status: Status = "stopped"
    environment = kernel_environment(run_id=run_id, root=workspace.root, log=folder / OUTPUT_LOG, cap=output_cap_chars)
    try:
        error = _execute(plan, record, environment, cell_timeout_s, observer or (lambda progress: None))
        status = "failed" if error else "finished"
    finally:
        # Also on Ctrl-C: nothing of the kernel stays behind, and run.json says how it ended.
        end_processes(run_id)
        record = _finish(record, status, time.monotonic() - began, error)
    return record


def _execute(
    plan: Plan,
    record: RunRecord,
    environment: dict[str, str],
    cell_timeout_s: int | None,
    observer: Callable[[Progress], None],
) -> CellError | None:
    """Run all cells; what stopped them, if anything did."""
    target = record.folder / record.notebook
    num_cells = len(plan.notebook.cells) + bool(plan.given)
    headings = _Headings()
    # papermill looks up engines by name in a table of its own.
    papermill_engines.register(NAME, LabEngine)
    with (record.folder / KERNEL_LOG).open("wb") as kernel_log:
        session = Session(
            cwd=plan.recipe.notebook.parent,
            env=environment,
            kernel_log=kernel_log,
            cell_timeout_s=cell_timeout_s,
            on_cell=lambda index, cell: observer(Progress(index + 1, num_cells, "cell", headings.of(cell))),
            on_output=lambda text: observer(Progress((session.cell or 0) + 1, num_cells, "output", text)),
        )
        try:
            with _papermill_trusts_us():
                papermill.execute_notebook(
                    plan.notebook,
                    # papermill fills in {names} in the path from the parameters; doubled braces stand for themselves.
                    str(target).replace("{", "{{").replace("}", "}}"),
                    parameters=plan.given,
                    engine_name=NAME,
                    kernel_name=KERNEL_NAME,
                    language="python",
                    progress_bar=False,
                    session=session,
                )
        except PapermillExecutionError as error:
            line = _failing_line(error)
            source = _first_line(error.source) if line is None else error.source.splitlines()[line - 1].strip()[:200]
            return CellError(error.cell_index + 1, source, error.ename, error.evalue, line)
        except (CellTimeoutError, DeadKernelError) as error:
            kind, message = failure_of(error, session)
            if session.cell is None:
                return CellError(None, "", kind, message)
            source = nbformat.read(target, as_version=4).cells[session.cell].source
            return CellError(session.cell + 1, _first_line(source), kind, message)
        except RuntimeError as error:
            # nbclient and jupyter_client raise it when a kernel does not come up; its own words tell why.
            if session.cell is not None:
                raise
            log = (record.folder / KERNEL_LOG).read_text(encoding="utf8", errors="replace")
            return CellError(None, "", "KernelNotStarted", f"{error}\n{log[-_KERNEL_LOG_TAIL_CHARS:]}".strip())
    return None


@contextmanager
def _papermill_trusts_us() -> Iterator[None]:
    """Without its warnings: it cannot read ``int | None``, and calls such parameters unknown; ours are checked."""
    log = logging.getLogger("papermill")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _finish(record: RunRecord, status: Status, seconds: float, error: CellError | None) -> RunRecord:
    """Save the record, then the notebook and its HTML, so that nothing in them can hide how the run ended."""
    target = record.folder / record.notebook
    record = replace(record, status=status, ended=now_iso(), seconds=round(seconds, 3), error=error)
    if not target.is_file():  # interrupted before papermill had written it
        record.save()
        return record
    notebook = remove_error_markers(nbformat.read(target, as_version=4))
    if error is not None and error.cell is not None:
        # papermill counts cells that it never reached as completed
        for number, cell in enumerate(notebook.cells, start=1):
            if number >= error.cell and "papermill" in cell.metadata:
                cell.metadata.papermill["status"] = "failed" if number == error.cell else "pending"
    record = replace(record, **vars(read_summary(notebook.cells)))
    record.save()
    write_text(target, nbformat.writes(notebook))
    report = f"{target.stem}.html"
    write_text(record.folder / report, report_html(notebook, record))
    record = replace(record, report=report)
    record.save()
    return record


def _failing_line(error: PapermillExecutionError) -> int | None:
    """The innermost line of the cell in its traceback, counted from 1; None where it does not say one."""
    frames = re.findall(rf"Cell In\[{error.exec_count}\], line (\d+)", strip_color("\n".join(error.traceback)))
    return int(frames[-1]) if frames and int(frames[-1]) <= len(error.source.splitlines()) else None


def _first_line(source: str) -> str:
    return next((line.strip() for line in source.splitlines() if line.strip()), "")[:200]


class _Headings:
    """The name of a cell: the last heading above it, else its own first line."""

    def __init__(self) -> None:
        self._last = ""

    def of(self, cell: nbformat.NotebookNode) -> str:
        """The name of the next cell; cells come in their order."""
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", ())):
            return "Parameters"
        if cell.cell_type == "markdown":
            headings = [line.lstrip("#").strip() for line in cell.source.splitlines() if line.startswith("#")]
            self._last = headings[-1] if headings else self._last
        return self._last or _first_line(cell.source)
