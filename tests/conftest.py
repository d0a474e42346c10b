"""What all tests share: a workspace of their own, one thread, no network, the browser."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import lab.runner  # noqa: F401  -- before nbformat, whose import it makes shorter
from tests.chromium import HOW_TO_GET, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Nearly all that is made while tests are collected stays: looking for garbage in it took a third of that time.
gc.set_threshold(50_000, 20, 20)

MEMORY_BYTES = 4 << 30
"""Least free space of a memory file system that the tests use; they fill a quarter of it at most."""

# Set before torch or a library of Hugging Face is imported, and inherited by the processes that tests start. One
# thread: a second makes small tensors no faster, waits for its turn by spinning (a dry run beside other work, on 2
# cores: 31 s of processor time instead of 7), and makes results depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# A run of the tests under nohup ignores the closing of a terminal; the trainings that it starts must not inherit that.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# debugpy, inside every notebook kernel, prints a warning about frozen modules otherwise.
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def memory_folder() -> Path | None:
    """A folder of a memory file system with room for the files of the tests; None where there is none.

    Every save is synced to the disk, and the tests save thousands of times.
    """
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return None
    system = os.statvfs(folder)
    executable = not system.f_flag & os.ST_NOEXEC
    return folder if executable and system.f_bavail * system.f_frsize >= MEMORY_BYTES else None


# pytest makes all temporary folders of the tests there; `--basetemp` goes before it.
if (folder := memory_folder()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
# A busy machine is no failure: no test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace root that commands and library calls of the test take for theirs."""
    root = tmp_path / "workspace"
    (root / "artifacts").mkdir(parents=True)
    (root / "training_data").mkdir()
    monkeypatch.setenv("HRM_LAB_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser for playwright's ``executable_path``; without one the test is skipped, or fails under CI=true."""
    found = find_chromium()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW_TO_GET)
        pytest.skip(HOW_TO_GET)
    return found


@pytest.fixture(scope="session")
def browser(chromium_path: Path) -> Iterator[Browser]:
    """One Chromium for all browser tests: playwright's loop runs once in a process."""
    from playwright.sync_api import sync_playwright

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags.append("--js-flags=--no-maglev,--no-turbofan")  # no page lives long enough to gain by compilers that optimise
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield started
        started.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: browsers, kernels and servers are waited for."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files as ``--dist loadfile`` shares them out; folders that share what takes long to start go to one process."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            together = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
            return together or str(super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


BROWSER, FAULTS = "tests/browser/", "tests/faults/"
TOGETHER = (BROWSER, FAULTS)
"""A tab and a server with what it has loaded; a fork server."""
SLOW_FIRST = (BROWSER, "tests/test_docs", FAULTS, "tests/models/test_compile", "tests/lab/", "tests/training/")
"""Where most of the time goes. The other files are short, so that all processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first; skip what is marked ``gpu`` where there is none, asking torch only if such a test is there."""
    items.sort(key=lambda item: next((at for at, s in enumerate(SLOW_FIRST) if item.nodeid.startswith(s)), 99))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and this machine has none"))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass by what has been imported: it would look at it hundreds of times."""
    gc.freeze()
