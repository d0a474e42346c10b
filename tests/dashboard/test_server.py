"""The server listens on this machine only, whichever way it is started, and ends with whoever started it."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard import server
from hrm_engine.errors import ConfigError
from tests.browser.server import free_port, listening_on, running

SERVE = "import sys; from dashboard.server import serve; sys.exit(serve(port=int(sys.argv[1])))"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"])
def test_an_address_that_others_could_reach_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="no authentication"):
        server.serve(address=address)


def test_a_taken_port_is_refused_and_the_next_free_one_found() -> None:
    with socket.socket() as taken:
        taken.bind((server.ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}"):
            server.serve(port=port)
        assert server.free_port(port) != port


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        server.serve(port=port)


def test_command_names_port_address_and_workspace(tmp_path: Path) -> None:
    command = server.command(8765, tmp_path)
    assert command[0] == sys.executable
    assert "--server.address=127.0.0.1" in command
    assert "--server.port=8765" in command
    assert command[-2:] == ["--root", str(tmp_path)]


def upgrade_status(port: int, host: str, origin: str | None = None) -> int:
    """What the server answers to a WebSocket under the name ``host``, opened by a page of it or of ``origin``."""
    connection = http.client.HTTPConnection(server.ADDRESS, port, timeout=10)
    connection.putrequest("GET", "/_stcore/stream", skip_host=True)
    for name, value in {
        "Host": host,
        "Origin": origin or f"http://{host}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        "Sec-WebSocket-Protocol": "streamlit",
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("way", ["serve", "streamlit run"])
def test_a_started_server_listens_on_the_loopback_only(workspace: Path, tmp_path: Path, way: str) -> None:
    port = free_port()
    # What a user may have set for other apps of theirs.
    environment = {**os.environ, "HRM_LAB_ROOT": str(workspace)}
    if way == "serve":
        command = [sys.executable, "-c", SERVE, str(port)]
        environment["STREAMLIT_SERVER_ADDRESS"] = "0.0.0.0"
    else:
        command = [sys.executable, "-m", "streamlit", "run", str(server.APP), f"--server.port={port}"]
    # Where a request to the outside would go: Streamlit asks a service for its public address.
    with socket.create_server(("127.0.0.1", 0)) as outside:
        environment["http_proxy"] = environment["https_proxy"] = "http://{}:{}".format(*outside.getsockname())
        with running(command, port, log=tmp_path / "server.log", environment=environment, folder=tmp_path) as process:
            assert listening_on(process.pid) == {("127.0.0.1", port)}
            assert upgrade_status(port, f"127.0.0.1:{port}") == 101
            assert upgrade_status(port, f"localhost:{port}") == 101
            for host, origin in (
                ("rebound.example", None),
                (f"127.0.0.1:{port}", "http://elsewhere.example"),
                (f"127.0.0.1:{port}", "null"),
                (f"127.0.0.1:{port}", "http://[half"),
            ):
                assert upgrade_status(port, host, origin) == 403
            connection = http.client.HTTPConnection(server.ADDRESS, port, timeout=10)
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("X-Frame-Options")) == (200, "SAMEORIGIN")
            assert answer.getheader("Content-Security-Policy") == "frame-ancestors 'self'"
            connection.close()
            process.terminate()
            assert process.wait(20) == (0 if way == "serve" else -signal.SIGTERM)
        outside.settimeout(0)
        with pytest.raises(BlockingIOError):
            outside.accept()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_streamlit_by_hand_serves_no_other_address(workspace: Path, address: str) -> None:
    command = [sys.executable, "-m", "streamlit", "run", str(server.APP), f"--server.address={address}"]
    command.append(f"--server.port={free_port()}")
    environment = {**os.environ, "HRM_LAB_ROOT": str(workspace)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert f"--server.address '{address}' is refused" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_importing_the_server_loads_nothing_heavy() -> None:
    probe = "import sys, dashboard.server; print(sorted({'streamlit', 'duckdb', 'pandas', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
