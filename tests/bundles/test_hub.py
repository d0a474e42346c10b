"""Whether the hub can be asked is found out in seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from hrm_engine.bundles.hub import hub_answers


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library asks, as it does not in other tests, and reads the environment of the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield
    close_session()


@contextmanager
def server_with(status: int) -> Iterator[str]:
    """A server that answers everything with this status; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "answers"), [(200, True), (404, True), (302, True), (407, False), (502, False)])
def test_an_answer_of_a_proxy_that_reaches_nothing_is_none(
    status: int, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_with(status) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert hub_answers() is answers


def test_nobody_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with server_with(200) as address:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert hub_answers() is False


def test_a_dead_proxy_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with server_with(200) as dead:
        pass
    monkeypatch.setenv("HTTPS_PROXY", dead)
    assert hub_answers() is False
