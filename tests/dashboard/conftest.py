"""Run folders to look at, and the app on them without a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hrm_engine.store.paths import Workspace
from tests.dashboard.run_folders import write_run
from tests.tiny_puzzles import DATASET, PuzzleLab, puzzle_source
from tests.tiny_runs import Lab, source

if TYPE_CHECKING:
    from streamlit.components.v2.component_manager import BidiComponentManager
    from streamlit.testing.v1 import AppTest

__all__ = ["puzzle_source", "source"]

APP = Path(__file__).parents[2] / "dashboard" / "router.py"


@pytest.fixture
def lab(workspace: Path) -> Workspace:
    """The test's own workspace, empty."""
    return Workspace(workspace)


@pytest.fixture
def run_dir(lab: Workspace) -> Path:
    """A finished run of 200 steps."""
    return write_run(lab.root, "default")


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory: pytest.TempPathFactory, puzzle_source: Path) -> Path:
    """A workspace in which a tiny solver of 4x4 Sudokus was trained for real, once."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "artifacts").mkdir()
    (root / "training_data").mkdir()
    PuzzleLab(root, puzzle_source).train("tiny")
    return root


@pytest.fixture
def tiny_solver(lab: Workspace, trained_tiny: Path) -> Path:
    """The run folder of a tiny solver in the test's own workspace, its dataset beside it."""
    shutil.copytree(trained_tiny / DATASET, lab.root / DATASET)
    copy = lab.runs / "tiny"
    shutil.copytree(trained_tiny / "artifacts/runs/tiny", copy)
    return copy


@pytest.fixture(scope="session")
def trained_brain(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """A tiny text model of up to three segments, trained for real, once; its run folder."""
    root = tmp_path_factory.mktemp("brain")
    (root / "artifacts").mkdir()
    (root / "training_data").mkdir()
    Lab(root, source).train("writer", halt_max_steps=3, max_seq_len=32)
    return Workspace(root).brains / "writer"


@pytest.fixture
def tiny_brain(lab: Workspace, trained_brain: Path) -> Path:
    """The run folder of a tiny text model in the test's own workspace."""
    copy = lab.brains / "writer"
    shutil.copytree(trained_brain, copy)
    return copy


@cache
def components() -> BidiComponentManager:
    """Components of installed packages, looked for once as a server does: it reads the metadata of each package."""
    from streamlit.components.v2.component_manager import BidiComponentManager

    manager = BidiComponentManager()
    manager.discover_and_register_components(start_file_watching=False)
    return manager


@pytest.fixture
def open_app(lab: Workspace) -> Iterator[Callable[..., AppTest]]:
    """Opens a page of the app on the test's workspace: ``open_app("run", run="default", tab="Log")``."""
    import streamlit as st
    from streamlit import config
    from streamlit.testing.v1 import AppTest

    st.cache_resource.clear()
    # There is no server here, which would read dashboard/.streamlit; the app looks at the address that one would have.
    options = {"server.address": "127.0.0.1", "runner.magicEnabled": False}
    before = {name: config.get_option(name) for name in options}
    for name, value in options.items():
        config.set_option(name, value)

    def opened(page: str = "runs", **link: str) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=60)
        app._bidi_component_manager = components()
        if page != "runs":
            app.switch_page(f"app_pages/{page}.py")
        for name, value in link.items():
            app.query_params[name] = value
        return app.run()

    yield opened
    for name, value in before.items():
        config.set_option(name, value)
    st.cache_resource.clear()
