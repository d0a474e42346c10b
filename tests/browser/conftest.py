"""A dashboard server for a workspace, and a page in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.server import dashboard_on

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def start_dashboard(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """``start_dashboard(root)`` starts a server on the workspace ``root`` and gives its address."""
    with ExitStack() as servers:

        def start(root: Path) -> str:
            return servers.enter_context(dashboard_on(root, log=tmp_path / "dashboard.log"))

        yield start


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; the test fails if a script on it raised an error."""
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where a test puts its pictures."""
    folder = tmp_path / "screenshots"
    folder.mkdir()
    return folder
