"""The Playground: give a solver a puzzle and watch it think, or a brain a prompt and watch it write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.app_pages.asking import asked
from dashboard.app_pages.boards import LARGE_PX, Board, boards, region_of
from dashboard.app_pages.forms import control
from dashboard.app_pages.parts import nothing_yet, plain, sentence
from dashboard.app_pages.text import text_section
from dashboard.app_pages.thinking import Thought, question, show, think
from dashboard.queries.solvers import Solver
from dashboard.resources import brains, run_index, solvers, workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.solving import EffortConfig
from hrm_engine.errors import HRMError
from hrm_engine.store.runs import pick_run, run_id, shared_name

STARTS = (1, 2, 4, 8, 16, 32)


PUZZLES, TEXT = "Puzzles", "Text"


def page() -> None:
    """Puzzles or text: what the link names, else what there is."""
    st.title("Playground", anchor=False)
    run_dirs = run_index(workspace().root).run_dirs()
    of_puzzles = {solver.id: solver for solver in solvers(workspace().root).all(run_dirs)}
    of_text = {brain.id: brain for brain in brains(workspace().root).all(run_dirs)}
    wanted = pick_run(st.query_params.get("bundle", ""), run_dirs, workspace())
    if wanted is not None and run_id(wanted, workspace()) in {**of_puzzles, **of_text}:
        play = TEXT if run_id(wanted, workspace()) in of_text else PUZZLES
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


def puzzle_section(found: dict[str, Solver], run_dirs: list[Path]) -> None:
    """Choose a solver and a puzzle, think, look."""
    if not found:
        nothing_yet(
            "There is no puzzle solver in this workspace yet.",
            "`lab train puzzle --config sudoku-4x4` trains one in a few minutes; it appears here when it is saved.",
        )
        return
    left, right = st.columns([2, 5], gap="large")
    with left:
        solver = chosen_solver(found, run_dirs)
        if solver is None:
            return
        try:
            puzzle = asked(solver)
        except HRMError as problem:
            sentence(f"This puzzle cannot be asked: {problem}")
            return
        segments, starts = effort(solver)
        wanted = st.button("Think", type="primary", width="stretch")
    with right:
        if wanted:
            try:
                st.session_state["thought"] = think(solver, puzzle, segments=segments, starts=starts)
            except HRMError as problem:
                st.session_state.pop("thought", None)
                sentence(f"The solver cannot think about it: {problem}")
                return
        thought: Thought | None = st.session_state.get("thought")
        if thought is not None and thought.question == question(solver, puzzle, segments, starts):
            st.fragment(show)(thought)
            return
        boards(
            solver,
            puzzle,
            [Board("Puzzle", puzzle.inputs)],
            side_px=LARGE_PX,
            region=region_of(solver, [puzzle.inputs]),
        )
        if puzzle.warning:
            plain(f"Note: {puzzle.warning}.")
        plain("Think shows here what the solver would answer after every segment.")


def chosen_solver(found: dict[str, Solver], run_dirs: list[Path]) -> Solver | None:
    """The solver of the link, else the one saved last; says so and gives None if the link names no solver."""
    wanted = st.query_params.get("bundle", "")
    named = pick_run(wanted, run_dirs, workspace()) if wanted else None
    solver = found.get(run_id(named, workspace())) if named is not None else None
    if not wanted:
        solver = next(iter(found.values()))
    elif named is None:
        gone = f"The bundle {wanted[:200]} is not in the workspace (any more): choose a solver below"
        sentence(shared_name(wanted, run_dirs, workspace()) or gone)
    elif solver is None:
        sentence(f"The bundle {wanted[:200]} solves no puzzles, or is not saved yet: choose a solver below")
    st.session_state["bundle_choice"] = None if solver is None else solver.id
    st.selectbox("Solver", list(found), key="bundle_choice", on_change=choose, placeholder="Choose a solver")
    if solver is not None:
        proxy = "; trained on a stand-in for the published dataset" if solver.is_proxy else ""
        plain(f"{solver.solves}, up to {solver.segments} segments in training{proxy}")
    return solver


def choose() -> None:
    """Put the solver chosen in the box into the link; the number of a puzzle belongs to the one before."""
    chosen: Any = st.session_state["bundle_choice"]
    st.query_params.from_dict({"bundle": chosen} if chosen else {})


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
