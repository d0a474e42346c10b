"""Starting the dashboard's server, on this machine only.

The pages show whatever is in the workspace and ask nobody who they are, so no other address than the loopback is
served. From another machine, forward the port: ``ssh -L 8501:127.0.0.1:8501 HOST``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from dashboard.queries.workspace import ROOT_OPTION
from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace

ADDRESS = "127.0.0.1"
FIRST_PORT = 8501
_TRIED_PORTS = 100
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0
APP = Path(__file__).with_name("app.py")


def command(port: int, root: Path) -> list[str]:
    """The command line of a server on 127.0.0.1:``port`` that shows the workspace ``root``.

    Options are given here and not only in ``.streamlit/config.toml`` because they win over the user's own
    configuration files and environment.
    """
    options = {
        "server.address": ADDRESS,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "browser.serverAddress": ADDRESS,
        "browser.gatherUsageStats": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(APP), *flags, "--", ROOT_OPTION, str(root)]


def serve(
    *, port: int | None = None, address: str = ADDRESS, open_browser: bool = False, root: Path | None = None
) -> int:
    """Run the server until it ends or Ctrl-C; the exit code is 0 then, else the server's.

    Without ``port`` the first free one from 8501 on is taken; without ``root`` the workspace is found as everywhere.
    Raises ConfigError for an address that other machines could reach, and for a port that cannot be used.
    """
    check_address(address)
    chosen = free_port() if port is None else _usable(port)
    where = Workspace.find().root if root is None else Path(root)
    # A session of its own would escape Ctrl-C on some systems: the child stays in our group and gets it as well.
    server = subprocess.Popen(command(chosen, where), env=environment())
    try:
        if open_browser and wait_until_ready(chosen, server):
            import webbrowser

            webbrowser.open(url(chosen))
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def url(port: int) -> str:
    """Where a browser finds the dashboard."""
    return f"http://{ADDRESS}:{port}"


def check_address(address: str) -> None:
    """Raise ConfigError unless ``address`` is the loopback address that is served."""
    if address not in (ADDRESS, "localhost"):
        raise ConfigError(
            f"--address {address!r} is refused: the dashboard has no authentication, so it listens on {ADDRESS} only; "
            f"from another machine use: ssh -L {FIRST_PORT}:{ADDRESS}:{FIRST_PORT} HOST"
        )


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from ``first`` on that nobody listens on. Raises ConfigError if there is none near."""
    for port in range(first, min(first + _TRIED_PORTS, 65536)):
        if _is_free(port):
            return port
    raise ConfigError(f"--port: none of {first} to {first + _TRIED_PORTS - 1} is free; stop a server or give another")


def _usable(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port {port} does not exist: use 1024 to 65535")
    if not _is_free(port):
        raise ConfigError(f"--port {port} cannot be used on {ADDRESS} (it is taken or not allowed): give another")
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            # A port that a stopped server has just left is free; on Windows this option would mean "share it".
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def environment() -> dict[str, str]:
    """This process's environment without streamlit's own variables, which belong to the user's other apps."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}


def wait_until_ready(port: int, server: subprocess.Popen[bytes], limit_s: float = _START_LIMIT_S) -> bool:
    """Wait until the server answers; False if it ended or ``limit_s`` seconds went by."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until and server.poll() is None:
        try:
            with socket.create_connection((ADDRESS, port), timeout=1.0):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def stop(server: subprocess.Popen[bytes], limit_s: float = _STOP_LIMIT_S) -> None:
    """End the server if it still runs: politely first, then for good."""
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(limit_s)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
