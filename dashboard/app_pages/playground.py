"""The Playground: give a solver a puzzle and watch it think, or a brain a prompt and watch it write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.app_pages.asking import chosen_puzzle
from dashboard.app_pages.parts import control, linked_choice, nothing_yet, plain, sentence, submitted
from dashboard.app_pages.text import reading_section, writing_section
from dashboard.app_pages.thinking import LARGE_PX, Board, boards, question, region_of, show, think
from dashboard.formats import count
from dashboard.queries.bundles import Brain, Solver, brains, solvers
from dashboard.resources import workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.solving import EffortConfig
from hrm_engine.errors import HRMError
from hrm_engine.store.runs import pick_run, run_id

T = TypeVar("T")
STARTS = (1, 2, 4, 8, 16, 32)
PUZZLES, TEXT = "Puzzles", "Text"
MODES = ("Write", "Read")


def page() -> None:
    """Puzzles or text: what the link names, else what there is."""
    st.title("Playground", anchor=False)
    run_dirs = workspace().run_dirs()
    of_puzzles = {solver.id: solver for solver in solvers(run_dirs, workspace())}
    of_text = {brain.id: brain for brain in brains(run_dirs, workspace())}
    linked = pick_run(st.query_params.get("bundle", ""), run_dirs, workspace())
    bundle = "" if linked is None else run_id(linked, workspace())
    if bundle in of_text or bundle in of_puzzles:
        play = TEXT if bundle in of_text else PUZZLES
    elif (play := st.query_params.get("play", "")) not in (PUZZLES, TEXT):
        play = TEXT if of_text and not of_puzzles else PUZZLES
    st.session_state["play"] = play
    st.segmented_control(
        "What to try", (PUZZLES, TEXT), key="play", required=True, label_visibility="collapsed", on_change=change
    )
    if play == TEXT:
        advice = "`lab run quickstart` trains a small one; it appears here when it is saved."
        choose("text model", "Brain", of_text, run_dirs, advice, text_section)
    else:
        advice = "`lab train puzzle --config sudoku-4x4` trains one in a few minutes; it appears here when it is saved."
        choose("puzzle solver", "Solver", of_puzzles, run_dirs, advice, puzzle_section)


def choose(
    kind: str, label: str, items: dict[str, T], run_dirs: list[Path], advice: str, section: Callable[..., None]
) -> None:
    """Choose one of ``items`` on the left, and draw its section."""
    if not items:
        nothing_yet(f"There is no {kind} in this workspace yet.", advice)
        return
    left, right = st.columns([2, 5], gap="large")
    key, dropped = f"{label.lower()}_choice", ("play", "puzzle", "task")  # a puzzle belongs to the solver before
    with left:
        item = linked_choice(label, items, run_dirs, f"no saved {kind}", param="bundle", key=key, dropped=dropped)
    if item is not None:
        section(item, left, right)


def change() -> None:
    """Put what is to be tried into the link."""
    st.query_params.from_dict({"play": st.session_state["play"]})


def puzzle_section(solver: Solver, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Choose a puzzle, think, look."""
    with left:
        proxy = "; trained on a stand-in for the published dataset" if solver.is_proxy else ""
        plain(f"{solver.solves}, up to {solver.segments} segments in training{proxy}")
        try:
            puzzle = chosen_puzzle(solver)
        except HRMError as problem:
            sentence(f"This puzzle cannot be used: {problem}")
            return
        segments, starts = effort(solver)
        is_pressed = st.button("Think", type="primary", width="stretch")
    with right:
        think_it = partial(think, solver, puzzle, segments=segments, starts=starts)
        subject = question(solver, puzzle, segments, starts)
        thought = submitted("thought", subject, is_pressed, think_it, "The solver cannot think about it")
        if thought is not None:
            st.fragment(show)(thought)
            return
        shown = [Board("Puzzle", puzzle.inputs)]
        boards(solver, puzzle, shown, side_px=LARGE_PX, region=region_of(solver, [puzzle.inputs]))
        if puzzle.warning:
            plain(f"Note: {puzzle.warning}.")
        plain("Think shows here what the solver would answer after every segment.")


def text_section(brain: Brain, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Let a brain write or read."""
    with left:
        plain(f"{brain.arch}, {brain.segments} segments in training, context of {count(brain.context)} tokens")
        mode = st.segmented_control(
            "What the brain does", MODES, default=MODES[0], key="mode", required=True, label_visibility="collapsed"
        )
    section = writing_section if mode == MODES[0] else reading_section
    section(brain, left, right)


def effort(solver: Solver) -> tuple[int, int]:
    """How long to think, and from how many starts."""
    depth = form_field(
        EffortConfig,
        "segments",
        value=solver.segments,
        help="It thinks so many, also beyond the one at which it would stop by itself",
    )
    segments = control(depth, key=f"segments {solver.id}")
    starts = st.select_slider(
        "Starts",
        STARTS,
        key="starts",
        help="Looks at the puzzle from several sides (symmetries, of ARC tasks their augmentations): the first to halt "
        "answers. What is shown segment by segment is the first, the board as it is.",
    )
    return int(segments), int(starts)


if __name__ == "__main__":
    page()
