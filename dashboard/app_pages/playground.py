"""The Playground: give a solver a puzzle and watch it think, or a brain a prompt and watch it write."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard.app_pages.asking import chosen_puzzle
from dashboard.app_pages.boards import LARGE_PX, Board, boards, region_of
from dashboard.app_pages.forms import control, submitted
from dashboard.app_pages.parts import linked_choice, nothing_yet, plain, sentence
from dashboard.app_pages.reading import reading_section
from dashboard.app_pages.thinking import question, show, think
from dashboard.app_pages.writing import writing_section
from dashboard.formats import count
from dashboard.queries.bundles import Brain, Solver, brains, solvers
from dashboard.resources import workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.solving import EffortConfig
from hrm_engine.errors import HRMError
from hrm_engine.store.runs import pick_run, run_id

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
        text_section(of_text, run_dirs)
    else:
        puzzle_section(of_puzzles, run_dirs)


def change() -> None:
    """Put what is to be tried into the link."""
    st.query_params.from_dict({"play": st.session_state["play"]})


def puzzle_section(items: dict[str, Solver], run_dirs: list[Path]) -> None:
    """Choose a solver and a puzzle, think, look."""
    if not items:
        nothing_yet(
            "There is no puzzle solver in this workspace yet.",
            "`lab train puzzle --config sudoku-4x4` trains one in a few minutes; it appears here when it is saved.",
        )
        return
    left, right = st.columns([2, 5], gap="large")
    with left:
        dropped = ("play", "puzzle", "task")  # the number of a puzzle belongs to the solver before
        solver = linked_choice(
            "Solver", items, run_dirs, "no saved solver", param="bundle", key="bundle_choice", dropped=dropped
        )
        if solver is None:
            return
        proxy = "; trained on a stand-in for the published dataset" if solver.is_proxy else ""
        plain(f"{solver.solves}, up to {solver.segments} segments in training{proxy}")
        try:
            puzzle = chosen_puzzle(solver)
        except HRMError as problem:
            sentence(f"This puzzle cannot be asked: {problem}")
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


def text_section(items: dict[str, Brain], run_dirs: list[Path]) -> None:
    """Choose a brain, and let it write or read."""
    if not items:
        nothing_yet(
            "There is no text model in this workspace yet.",
            "`lab run quickstart` trains a small one; it appears here when it is saved.",
        )
        return
    left, right = st.columns([2, 5], gap="large")
    with left:
        brain = linked_choice(
            "Brain", items, run_dirs, "no text model", param="bundle", key="brain_choice", dropped=("play",)
        )
        if brain is None:
            return
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
