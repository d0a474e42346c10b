"""Starting the dashboard's server, on this machine only.

The pages show whatever is in the workspace and ask nobody who they are, so no other address than the loopback is
served. From another machine, forward the port: ``ssh -L 8501:127.0.0.1:8501 HOST``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace

ADDRESS = "127.0.0.1"
FIRST_PORT = 8501
ROOT_OPTION = "--root"
APP = Path(__file__).with_name("app.py")
_TRIED_PORTS = 100
_OUR_NAMES = (ADDRESS, "localhost")
# Another page must not show ours in a frame of its own, under its own buttons.
_FRAME_POLICY = [(b"x-frame-options", b"SAMEORIGIN"), (b"content-security-policy", b"frame-ancestors 'self'")]


def command(port: int, root: Path) -> list[str]:
    """The command line of a server on 127.0.0.1:``port`` that shows the workspace ``root`` and opens no browser."""
    return [sys.executable, "-m", "streamlit", *_arguments(port, root, open_browser=False)]


def serve(
    *, port: int | None = None, address: str = ADDRESS, open_browser: bool = False, root: Path | None = None
) -> int:
    """Run the server in this process until Ctrl-C or SIGTERM ends it; the exit code is 0 then.

    Without ``port`` the first free one from 8501 on is taken; without ``root`` the workspace is found as everywhere.
    Raises ConfigError for an address that other machines could reach, and for a port that cannot be used.
    """
    check_address(address)
    chosen = free_port() if port is None else _usable(port)
    where = Workspace.find().root if root is None else Path(root)
    import streamlit
    from streamlit.web import cli

    def end(*_: object) -> None:
        raise SystemExit(0)

    # In this process and not in one of our own: whoever ends us ends the server, and none is left behind. The server
    # closes on these signals, and then raises them once more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        cli.main(_arguments(chosen, where, open_browser=open_browser), standalone_mode=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        # DuckDB complains at the end of the process about connections that a cache still holds.
        streamlit.cache_resource.clear()
    return 0


def _arguments(port: int, root: Path, *, open_browser: bool) -> list[str]:
    # Given here and not only in .streamlit/config.toml: these win over the user's own files and environment.
    options = {
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "false" if open_browser else "true",
        "server.showEmailPrompt": "false",
        "server.fileWatcherType": "none",
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "browser.serverAddress": ADDRESS,
        "browser.gatherUsageStats": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return ["run", str(APP), *flags, "--", ROOT_OPTION, str(root)]


def workspace_of(arguments: Sequence[str]) -> Workspace:
    """The workspace after ``--root`` in the app's own arguments, else the one that ``Workspace.find`` finds."""
    for option, value in pairwise(arguments):
        if option == ROOT_OPTION:
            return Workspace(Path(value).absolute())
    return Workspace.find()


def url(port: int) -> str:
    """Where a browser finds the dashboard."""
    return f"http://{ADDRESS}:{port}"


class OnlyHere:
    """An ASGI application that answers requests to this machine's own names, from pages of its own, and no others.

    It stands before Streamlit, which would look the machine's public address up at a service outside before it refuses
    a page from elsewhere, and which says nothing on frames.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request. Others get 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if not _is_ours(f"//{headers.get(b'host', '')}") or (origin is not None and not _is_ours(origin)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"This dashboard is for its own machine only."})
            return

        async def framed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_FRAME_POLICY]}
            await send(message)

        await self._application(scope, receive, framed)


def _is_ours(address: str) -> bool:
    try:
        return urlsplit(address).hostname in _OUR_NAMES
    except ValueError:
        return False


def check_address(address: str, *, option: str = "--address") -> None:
    """Raise ConfigError unless ``address`` is the loopback address that is served."""
    if address not in _OUR_NAMES:
        raise ConfigError(
            f"{option} {address!r} is refused: the dashboard has no authentication, so it listens on {ADDRESS} only; "
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
