"""The kernel of a notebook run: this interpreter, a known environment, and no process left afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from lab.runner.outstream import CAP_VARIABLE, LOG_VARIABLE

KERNEL_NAME = "python3"
RUN_VARIABLE = "HRM_LAB_NOTEBOOK_RUN"
_CODE = Path(__file__).parents[2]
_END_LIMIT_S = 5.0
_CLOCK_MARGIN_S = 1.0


class ThisInterpreter(KernelSpecManager):
    """Knows one kernel: the interpreter that runs the lab.

    The kernels installed for the user or the system are not asked: a ``python3`` among them may belong to another
    environment, or there may be none.
    """

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The same kernel under any name."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        stream = "--IPKernelApp.outstream_class=lab.runner.outstream.CappedOutStream"
        return KernelSpec(argv=[*command, stream], display_name="HRM Lab", language="python")


class LabKernelManager(AsyncKernelManager):
    """Starts kernels of this interpreter."""

    @default("kernel_spec_manager")
    def _this_interpreter(self) -> KernelSpecManager:
        return ThisInterpreter(parent=self)


def kernel_environment(*, run_id: str, root: Path, log: Path, cap: int) -> dict[str, str]:
    """The environment of a run's kernel: that of this process, the workspace, and a mark that finds its processes."""
    path = [str(_CODE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "HRM_LAB_ROOT": str(root.absolute()),
        RUN_VARIABLE: run_id,
        LOG_VARIABLE: str(log.absolute()),
        CAP_VARIABLE: str(cap),
        # debugpy, part of every kernel, warns on stderr about frozen modules otherwise.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _began(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.Error:
        return float("inf")  # gone meanwhile


def processes_of(run_id: str) -> Iterator[psutil.Process]:
    """The kernel of a run and everything that its cells started, also what has left its process group."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_VARIABLE) == run_id:
                yield process
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's


def end_processes(run_id: str, *, since: float | None = None) -> int:
    """End the processes that are left of a run, politely first, and return how many there were.

    Args:
        since: start of the run in seconds since 1970, where it is known from its record only: what is older is no part
            of it.
    """
    left = [process for process in processes_of(run_id) if since is None or _began(process) >= since - _CLOCK_MARGIN_S]
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=_END_LIMIT_S)[1] if left else ():
        with suppress(psutil.Error):
            process.kill()
    return len(left)
