"""A real dashboard server for a test, on a free port of the loopback, stopped afterwards whatever happens."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dashboard.server import ADDRESS, command

START_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0


def free_port() -> int:
    """A port that was free a moment ago, below those that a system hands to whoever asks for any port.

    Of those, a kernel of a notebook in another test would sometimes get this one before the server has it.
    """
    # of the system: two workers whose tests seed Python's own generator alike would draw the same ports
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((ADDRESS, port))
            return port


@contextmanager
def dashboard_on(root: Path, log: Path) -> Iterator[str]:
    """A dashboard that shows the workspace ``root``; yields its address, ``http://127.0.0.1:PORT``."""
    port = free_port()
    with running(command(port, root), port, log=log):
        yield f"http://{ADDRESS}:{port}"


@contextmanager
def running(
    arguments: Sequence[str],
    port: int,
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers on ``port``; its output goes to ``log``, and into the error if it ends early."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=environment or dict(os.environ), cwd=folder
        )
    try:
        _wait_until_ready(process, port, log)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listening_on(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process and its children listen."""
    parent = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (parent, *parent.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection((ADDRESS, port), timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)
    state = "ended" if process.poll() is not None else "did not answer in time"
    raise RuntimeError(f"the server {state}: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
