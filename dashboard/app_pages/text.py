"""Text in the Playground: choose a brain, and let it write or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.app_pages.parts import nothing_yet, plain, sentence
from dashboard.app_pages.reading import reading_section
from dashboard.app_pages.writing import writing_section
from dashboard.formats import count
from dashboard.queries.brains import Brain
from dashboard.resources import workspace
from hrm_engine.store.runs import pick_run, run_id, shared_name

WRITE, READ = "Write", "Read"


def text_section(found: dict[str, Brain], run_dirs: list[Path]) -> None:
    """Choose a brain and what it does."""
    if not found:
        nothing_yet(
            "There is no text model in this workspace yet.",
            "`lab run quickstart` trains a small one; it appears here when it is saved.",
        )
        return
    left, right = st.columns([2, 5], gap="large")
    with left:
        brain = chosen_brain(found, run_dirs)
        if brain is None:
            return
        mode = st.segmented_control(
            "What the brain does", (WRITE, READ), default=WRITE, key="mode", required=True, label_visibility="collapsed"
        )
    if mode == READ:
        reading_section(brain, left, right)
    else:
        writing_section(brain, left, right)


def chosen_brain(found: dict[str, Brain], run_dirs: list[Path]) -> Brain | None:
    """The brain of the link, else the one saved last; says so and gives None if the link names none."""
    wanted = st.query_params.get("bundle", "")
    named = pick_run(wanted, run_dirs, workspace()) if wanted else None
    brain = found.get(run_id(named, workspace())) if named is not None else None
    if not wanted:
        brain = next(iter(found.values()))
    elif brain is None:
        gone = f"The bundle {wanted[:200]} is no text model of the workspace (any more): choose a brain below"
        sentence(shared_name(wanted, run_dirs, workspace()) or gone)
    st.session_state["brain_choice"] = None if brain is None else brain.id
    st.selectbox("Brain", list(found), key="brain_choice", on_change=choose, placeholder="Choose a brain")
    if brain is not None:
        plain(f"{brain.arch}, {brain.segments} segments in training, context of {count(brain.context)} tokens")
    return brain


def choose() -> None:
    """Put the brain chosen in the box into the link."""
    chosen: Any = st.session_state["brain_choice"]
    st.query_params.from_dict({"play": "Text", **({"bundle": chosen} if chosen else {})})
