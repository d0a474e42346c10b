"""What pages of all sessions share: the index of runs, open metrics files, verified checkpoints. Bounded."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.queries.attachments import Attachments, Version
from dashboard.queries.brains import Brains
from dashboard.queries.filecache import FileCache, Signature, signature
from dashboard.queries.folder import Checkpoints, Parameters, parameter_cache
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.puzzles import EvaluatedRows, evaluated_rows_cache
from dashboard.queries.runs import RunIndex
from dashboard.queries.solvers import Solver, Solvers, TestSplit, open_test_split
from dashboard.queries.workspace import workspace_of
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


@st.cache_resource(show_spinner=False)
def parameters() -> FileCache[Parameters]:
    """Parameters of runs."""
    return parameter_cache()


@st.cache_resource(show_spinner=False)
def checkpoints() -> Checkpoints:
    """Checkpoints whose hashes were compared."""
    return Checkpoints()


@st.cache_resource(max_entries=4, show_spinner=False)
def solvers(root: Path) -> Solvers:
    """The puzzle solvers of the workspace at ``root``."""
    return Solvers(Workspace(root))


@st.cache_resource(max_entries=4, show_spinner=False)
def brains(root: Path) -> Brains:
    """The text models of the workspace at ``root``."""
    return Brains(Workspace(root))


@st.cache_resource(show_spinner=False)
def evaluated_rows() -> FileCache[EvaluatedRows]:
    """Full evaluations of puzzle runs."""
    return evaluated_rows_cache()


@st.cache_resource(max_entries=4, show_spinner=False)
def attachments(root: Path) -> Attachments:
    """Where experts stand in the workspace at ``root``."""
    return Attachments(Workspace(root))


def test_puzzles(solver: Solver) -> TestSplit:
    """The test split of a solver's dataset as it is now. Raises DataError."""
    return _test_split(solver, None if solver.dataset is None else signature(solver.dataset / "test/dataset.json"))


@st.cache_resource(max_entries=8, show_spinner=False)
def _test_split(solver: Solver, dataset_version: Signature | None) -> TestSplit:
    return open_test_split(solver)


@st.cache_resource(max_entries=3, show_spinner=False)
def puzzle_bundle(path: Path, version: Version) -> PuzzleBundle:
    """The solver in a folder, as it is and routes in the state ``version``. Raises BundleError, RegistryError."""
    from hrm_engine.bundles.load import load_puzzle_bundle

    return load_puzzle_bundle(path, workspace=workspace())


@dataclass(frozen=True)
class SharedBundle:
    """A text model that all sessions use, one after another."""

    bundle: Bundle
    lock: Lock


@st.cache_resource(max_entries=3, show_spinner=False)
def text_bundle(path: Path, version: Signature) -> SharedBundle:
    """The text model in a folder as it was saved in the state ``version``. Raises BundleError, RegistryError."""
    from hrm_engine.bundles.load import load_bundle

    return SharedBundle(load_bundle(path, workspace=workspace()), Lock())
