"""What pages of all sessions share: the index of runs, open metrics files, verified checkpoints. Bounded."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from dashboard.queries.filecache import FileCache
from dashboard.queries.folder import Checkpoints, Parameters, parameter_cache
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.runs import RunIndex
from dashboard.queries.workspace import workspace_of
from hrm_engine.store.paths import Workspace

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


@st.cache_resource(show_spinner=False)
def parameters() -> FileCache[Parameters]:
    """Parameters of runs."""
    return parameter_cache()


@st.cache_resource(show_spinner=False)
def checkpoints() -> Checkpoints:
    """Checkpoints whose hashes were compared."""
    return Checkpoints()
