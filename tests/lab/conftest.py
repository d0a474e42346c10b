"""Tiny real trainings, and notebooks to run; the current folder is the workspace, as it is for its user."""

from __future__ import annotations

import pytest

from tests.tiny_runs import lab, one_thread, source

__all__ = ["lab", "one_thread", "source"]


@pytest.fixture(autouse=True)
def in_the_workspace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be where the commands of the test are at work, so that they write short paths."""
    if "workspace" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("workspace"))
