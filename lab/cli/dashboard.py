"""``lab dashboard`` and ``lab notebook``: the two servers, both on this machine only."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Annotated

from cyclopts import Parameter

from hrm_engine.errors import missing_package
from hrm_engine.store.paths import Workspace
from lab.cli.console import console

LOOPBACK = "127.0.0.1"


def dashboard(
    *,
    port: Annotated[int | None, Parameter(help="Port to listen on. Default: the first free one from 8501.")] = None,
    address: Annotated[str, Parameter(help="Address to listen on; only this machine's own is served.")] = LOOPBACK,
    open: Annotated[bool, Parameter(help="Open the page in a browser.")] = True,
) -> int:
    """Open the dashboard in the browser; Ctrl-C stops it."""
    from dashboard.server import check_address, serve

    check_address(address)  # before the user is told to open it
    return serve(port=port, address=address, open_browser=open and _has_browser(), root=Workspace.find().root)


def notebook(
    *,
    port: Annotated[int | None, Parameter(help="Port to listen on. Default: the first free one from 8888.")] = None,
    open: Annotated[bool, Parameter(help="Open the page in a browser.")] = True,
) -> int:
    """Open JupyterLab on the notebooks of this workspace; Ctrl-C stops it."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise missing_package("lab notebook", "jupyterlab")
    command = notebook_command(Workspace.find(), port=port, open_browser=open and _has_browser())
    if os.name == "posix":
        # In our place: Ctrl-C and other signals reach the server itself, which knows how to end its kernels.
        sys.stdout.flush()
        os.execv(command[0], command)
    server = subprocess.Popen(command)
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue  # the server has got it as well, and asks what to do


def notebook_command(workspace: Workspace, *, port: int | None, open_browser: bool) -> list[str]:
    """The command line of JupyterLab.

    The whole workspace is its root, so that executed notebooks under ``artifacts/`` open as well; it starts in
    ``notebooks/`` where there is one.
    """
    start = "/lab/tree/notebooks" if (workspace.root / "notebooks").is_dir() else "/lab"
    options = {
        "ServerApp.ip": LOOPBACK,
        "ServerApp.root_dir": str(workspace.root.absolute()),
        "LabApp.default_url": start,
    }
    if port is not None:
        options |= {"ServerApp.port": str(port), "ServerApp.port_retries": "0"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    if not open_browser:
        flags.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--allow-root")  # in a container there is often nobody else; the token still guards the server
    return [sys.executable, "-m", "jupyterlab", *flags]


def _has_browser() -> bool:
    """Whether a browser window can appear: over SSH a text browser would take the terminal instead."""
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return True
    console(stderr=True).print("no display here: open the address below in a browser")
    return False
