"""One dashboard server for all tests of a process, a workspace for it, and a page in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import pytest

from tests.browser.server import dashboard_on
from tests.tiny_puzzles import puzzle_source
from tests.tiny_runs import forks, one_thread, source

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Error, Page, ViewportSize


SIZE: ViewportSize = {"width": 1360, "height": 1000}
LIMIT_MS = 90_000
"""How long a test waits for anything: a busy machine is no failure."""

__all__ = ["forks", "one_thread", "puzzle_source", "source"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server shows; every test empties it."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture
def workspace(served: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace root that commands, library calls and the server take for theirs."""
    root = served / "workspace"
    rmtree(root, ignore_errors=True)
    (root / "artifacts").mkdir(parents=True)
    (root / "training_data").mkdir()
    monkeypatch.setenv("HRM_LAB_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def start_dashboard(served: Path) -> Iterator[Callable[[Path], str]]:
    """``start_dashboard(workspace)`` gives the address of the server that shows it, started once: that takes longest.

    Everything that a page shows it reads from the disk, so it shows the next test's workspace as it would show one
    that was changed meanwhile.
    """
    with ExitStack() as server:
        address = ""

        def start(root: Path) -> str:
            nonlocal address
            assert root == served / "workspace"
            address = address or server.enter_context(dashboard_on(root, log=served / "dashboard.log"))
            return address

        yield start


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    """The tab of all tests, whose process has the scripts of the dashboard fetched and compiled.

    In a tab of its own each test would spend 2 s of processor time more.
    """
    with browser.new_page(viewport=SIZE) as opened:
        yield opened


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """An empty page; the test fails if a script on it raised an error."""
    with without_errors(tab):
        yield tab


@contextmanager
def without_errors(page: Page) -> Iterator[None]:
    """Leave the page afterwards, which ends its session; no script on it may have raised an error."""
    page.set_default_timeout(LIMIT_MS)
    errors: list[str] = []

    def note(error: Error) -> None:
        errors.append(str(error))

    page.on("pageerror", note)
    yield
    print(f"{page.url} showed at the end:\n{page.locator('body').inner_text()}")  # in the report of a test that failed
    page.goto("about:blank")
    page.remove_listener("pageerror", note)
    assert errors == []


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where a test puts its pictures."""
    folder = tmp_path / "screenshots"
    folder.mkdir()
    return folder
