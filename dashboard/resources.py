"""What pages of all sessions share: the index of runs, open metrics files, loaded models. Bounded."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.queries.attachments import Version
from dashboard.queries.bundles import Solver, TestSplit, open_test_split
from dashboard.queries.filecache import Signature, signature
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.runs import RunIndex
from dashboard.server import workspace_of
from hrm_engine.store.paths import Workspace

if TYPE_CHECKING:
    from hrm_engine.bundles.bundle import Bundle, PuzzleBundle

# Each holds the rows of one run in memory: about 10 MB for 10,000 training steps.
_OPEN_RUNS = 12


def workspace() -> Workspace:
    """The workspace that this server shows."""
    return workspace_of(sys.argv[1:])


@st.cache_resource(max_entries=4, show_spinner=False)
def run_index(root: Path) -> RunIndex:
    """The index of all runs of the workspace at ``root``."""
    return RunIndex(Workspace(root))


@st.cache_resource(max_entries=_OPEN_RUNS, show_spinner=False)
def run_metrics(run_dir: Path) -> RunMetrics:
    """The metrics of one run, read on from where the last refresh stopped."""
    return RunMetrics(run_dir)


def fresh_metrics(run_dir: Path) -> RunMetrics:
    """The metrics of one run as they are now."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    return metrics


def test_puzzles(solver: Solver) -> TestSplit:
    """The test split of a solver's dataset as it is now. Raises DataError."""
    return _test_split(solver, None if solver.dataset is None else signature(solver.dataset / "test/dataset.json"))


@st.cache_resource(max_entries=8, show_spinner=False)
def _test_split(solver: Solver, dataset_version: Signature | None) -> TestSplit:
    return open_test_split(solver)


@st.cache_resource(max_entries=3, show_spinner=False)
def puzzle_bundle(path: Path, version: Version) -> PuzzleBundle:
    """The solver in a folder, as it is and routes in the state ``version``. Raises BundleError, RegistryError."""
    from hrm_engine.bundles.bundle import PuzzleBundle
    from hrm_engine.bundles.load import load_bundle

    return load_bundle(path, PuzzleBundle, workspace=workspace())


@dataclass(frozen=True)
class SharedBundle:
    """A text model that all sessions use, one after another."""

    bundle: Bundle
    lock: Lock


@st.cache_resource(max_entries=3, show_spinner=False)
def text_bundle(path: Path, version: Signature) -> SharedBundle:
    """The text model in a folder as it was saved in the state ``version``. Raises BundleError, RegistryError."""
    from hrm_engine.bundles.bundle import Bundle
    from hrm_engine.bundles.load import load_bundle

    return SharedBundle(load_bundle(path, Bundle, workspace=workspace()), Lock())
