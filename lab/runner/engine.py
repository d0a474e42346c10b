"""The papermill engine of the lab: our kernel, named cells, and a limit on what one cell may put into the notebook."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager

from lab.runner.kernel import LabKernelManager

NAME = "hrm-lab"
RICH_CAP_BYTES = 10_000_000
"""Size of all outputs of one cell in the notebook file; printed text has its own, smaller limit in the kernel."""
_ERROR_CAP_CHARS = 10_000
_IOPUB_LIMIT_S = 60
_STOP_LIMIT_S = 120.0


@dataclass
class Session:
    """What a run passes to the engine, and where the engine notes which cell runs."""

    cwd: Path
    env: dict[str, str]
    kernel_log: IO[bytes]
    cell_timeout_s: int | None
    on_cell: Callable[[int, NotebookNode], None]
    on_output: Callable[[str], None]
    cell: int | None = None
    """Position of the cell that runs, or ran last; None before the first."""
    sizes: dict[int, int] = field(default_factory=dict)


class LabEngine(NBClientEngine):
    """Runs a notebook that papermill has prepared."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        session: Session,
        start_timeout: int = 60,
        **_: Any,
    ) -> None:
        """Execute all cells; raises what nbclient raises when a kernel dies or a cell takes too long."""
        client = LabClient(
            nb_man,
            session=session,
            kernel_name=kernel_name,
            kernel_manager_class=LabKernelManager,
            timeout=session.cell_timeout_s,
            startup_timeout=start_timeout,
            iopub_timeout=_IOPUB_LIMIT_S,
            # One output for each stream, with carriage returns carried out: a progress bar is its last line.
            coalesce_streams=True,
        )
        client.execute(cwd=str(session.cwd), env=session.env, stdout=session.kernel_log, stderr=session.kernel_log)


class LabClient(PapermillNotebookClient):
    """Limits the outputs of each cell, and notes which cell runs."""

    def __init__(self, nb_man: NotebookExecutionManager, *, session: Session, **kwargs: Any) -> None:
        super().__init__(nb_man, on_cell_start=self._cell_starts, **kwargs)
        self.session = session

    def _cell_starts(self, cell: NotebookNode, cell_index: int) -> None:
        self.session.cell = cell_index
        self.session.on_cell(cell_index, cell)

    def papermill_execute_cells(self) -> None:
        """Run all cells. When the runner has to stop, a training in the kernel gets time to save."""
        try:
            super().papermill_execute_cells()
        except (KeyboardInterrupt, SystemExit):
            # The kernel is interrupted now, and asked to leave; half of this time later it gets SIGTERM, then SIGKILL.
            if self.km is not None:
                self.km.shutdown_wait_time = _STOP_LIMIT_S
            raise

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """Add one output to a cell, or a note in its place where the cell has reached its limit."""
        content = msg["content"]
        if msg["msg_type"] == "error":
            content["evalue"] = _cut(content.get("evalue", ""))
            content["traceback"] = [_cut(line) for line in content.get("traceback", ())][:200]
        spent = self.session.sizes.get(cell_index, 0)
        if spent > RICH_CAP_BYTES:
            return None
        spent += len(json.dumps(content, default=str))
        self.session.sizes[cell_index] = spent
        if spent > RICH_CAP_BYTES and msg["msg_type"] != "error":
            note = f"[outputs of this cell are cut here: they are larger than {RICH_CAP_BYTES // 1_000_000} MB]\n"
            outs.append(new_output("stream", name="stderr", text=note))
            return None
        made = super().output(outs, msg, display_id, cell_index)
        if made is not None and made.get("output_type") == "stream":
            self.session.on_output(made["text"])
        return made

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        # An update takes the place of an output, so it is held to the limit by itself.
        if len(json.dumps(msg["content"], default=str)) <= RICH_CAP_BYTES:
            super()._update_display_id(display_id, msg)


def failure_of(problem: BaseException, session: Session) -> tuple[str, str]:
    """Type and message of the error that ended a run; the message names the cause."""
    if isinstance(problem, CellTimeoutError) and session.cell_timeout_s:
        return "CellTimeout", f"the cell did not end within {session.cell_timeout_s} seconds (--cell-timeout)"
    if isinstance(problem, DeadKernelError):
        return "KernelDied", "the kernel's process ended while the cell ran (killed, out of memory, or a native crash)"
    return type(problem).__name__, _cut(str(problem))


def _cut(text: str) -> str:
    if len(text) <= _ERROR_CAP_CHARS:
        return text
    return f"{text[:_ERROR_CAP_CHARS]} [cut after {_ERROR_CAP_CHARS:,} characters]"
