"""``lab notebook`` and ``lab dashboard`` serve this machine only."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from lab.cli.dashboard import notebook_command
from tests.browser.server import free_port

HERE = Path(__file__).parents[2]


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Addresses that the server and its helpers listen on; some helpers live only for a moment."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            connections = member.net_connections(kind="tcp")
            found |= {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_jupyterlab_listens_on_this_machine_only(workspace: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "lab", "notebook", "--no-open", "--port", str(port)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        process = psutil.Process(server.pid)
        found: set[tuple[str, int]] = set()
        until = time.monotonic() + 60
        try:
            while not found and time.monotonic() < until and server.poll() is None:
                time.sleep(0.1)
                found = listening(process)
        finally:
            for member in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    member.terminate()
            out, _ = server.communicate(timeout=30)
    assert found == {("127.0.0.1", port)}, out


def test_jupyterlab_sees_the_workspace_and_begins_at_the_notebooks(workspace: Path) -> None:
    plain = notebook_command(Workspace(workspace), port=None, open_browser=True)
    assert f"--ServerApp.root_dir={workspace}" in plain
    assert "--LabApp.default_url=/lab" in plain
    assert "--no-browser" not in plain
    (workspace / "notebooks").mkdir()
    chosen = notebook_command(Workspace(workspace), port=8899, open_browser=False)
    assert "--LabApp.default_url=/lab/tree/notebooks" in chosen
    assert "--ServerApp.port=8899" in chosen
    assert "--no-browser" in chosen


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.1", "::", "example.org"])
def test_the_dashboard_refuses_other_addresses(
    address: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "--address", address]) == 2
    told = capsys.readouterr().err
    assert address in told
    assert "open the address" not in told
