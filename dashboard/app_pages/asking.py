"""The choice of a puzzle: one of the test split, or one that is typed, filled in or drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from dashboard.app_pages.parts import plain
from dashboard.charts.puzzles import maze_board
from dashboard.charts.style import CONFIG
from dashboard.formats import count
from dashboard.queries.bundles import Solver, TestSplit
from dashboard.resources import test_puzzles
from hrm_engine.errors import DataError

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Puzzle

TEST, TEXT, GRID, DRAWING = "Test puzzle", "Text", "Grid", "Drawing"
# What a click puts into a cell of a maze, by its token.
BRUSHES = {"Wall": 1, "Free": 2, "Start": 3, "Goal": 4}


def chosen_puzzle(solver: Solver) -> Puzzle:
    """The puzzle that the controls describe. Raises DataError: this solver cannot take it."""
    board = solver.board
    ways = (TEST, TEXT, DRAWING if board.cell_names else GRID) if board.hint else (TEST,)
    way = TEST
    if len(ways) > 1:
        way = st.segmented_control(
            "Puzzle from", ways, default=TEST, required=True, key=f"way {solver.id}", on_change=keep, args=(solver,)
        )
    if way == TEST:
        puzzle = from_test_split(solver, others=ways[1:])
    elif way == TEXT:
        puzzle = from_text(solver)
    else:
        puzzle = from_grid(solver) if way == GRID else from_drawing(solver)
    st.session_state[f"latest {solver.id}"] = puzzle.inputs
    if puzzle.rating is not None:
        plain(f"Difficulty rating {puzzle.rating:g}{board.rating_unit}")
    return puzzle


def keep(solver: Solver) -> None:
    """Let the text, grid or drawing begin with the latest puzzle."""
    latest = st.session_state.get(f"latest {solver.id}")
    if latest is not None:
        st.session_state[f"begun {solver.id}"] = latest
    st.session_state.pop(f"drawn {solver.id}", None)


def from_test_split(solver: Solver, others: tuple[str, ...]) -> Puzzle:
    """A puzzle that the solver was not trained on, by its number, an ARC pair by its task."""
    try:
        split = test_puzzles(solver)
    except DataError as problem:
        advice = f"use {' or '.join(others)}" if others else "put the dataset back where it was"
        raise DataError(f"there are no test puzzles of this solver ({problem}): {advice}") from problem
    if split.tasks:
        return split.puzzle(arc_row(split))
    last = split.num_rows - 1
    key = f"number {solver.id}"
    if key not in st.session_state:
        linked = st.query_params.get("puzzle", "")
        is_number = linked.isascii() and linked.isdecimal() and len(linked) < 10 and int(linked) <= last
        st.session_state[key] = int(linked) if is_number else 0
    st.session_state[key] = min(st.session_state[key], last)  # the dataset may have been built again, smaller
    number = st.number_input(f"Number, 0 to {count(last)}", 0, last, key=key, step=1)
    st.query_params["puzzle"] = str(number)
    return split.puzzle(int(number))


def arc_row(split: TestSplit) -> int:
    """The row of a test pair of an ARC task."""
    linked = st.query_params.get("task", "")
    tasks = list(split.tasks)
    place = tasks.index(linked) if linked in split.tasks else 0
    task = st.selectbox("Task", tasks, index=place)
    st.query_params["task"] = task
    rows = split.tasks[task]
    pair = 1
    if len(rows) > 1:
        pair = st.number_input("Test pair", 1, len(rows), 1, key=f"pair {task}")
    return rows[int(pair) - 1]


def from_text(solver: Solver) -> Puzzle:
    """A puzzle as text; it begins with the latest one."""
    begun = st.session_state.get(f"begun {solver.id}")
    tokens = "" if begun is None else solver.board.to_text(begun)
    text = st.text_area(
        solver.board.hint,
        "\n".join(tokens[start : start + solver.width] for start in range(0, len(tokens), solver.width)),
        key=f"text {solver.id}",
        height=min(24 * solver.height + 40, 560),
        max_chars=20_000,
    )
    if not (text or "").strip():
        cells = solver.height * solver.width
        raise DataError(f"the text is empty: write the puzzle's {cells} cells, or choose a test puzzle")
    return solver.board.read(text or "", solver.height, solver.width)


def from_grid(solver: Solver) -> Puzzle:
    """A Sudoku filled in cell by cell."""

    begun = st.session_state.get(f"begun {solver.id}")
    side = solver.height
    cells = "." * (side * side) if begun is None else solver.board.to_text(begun)
    rows = [[cell.replace(".", "") for cell in cells[side * row : side * (row + 1)]] for row in range(side)]
    names = [str(column) for column in range(1, side + 1)]
    make = st.column_config.TextColumn
    edited = st.data_editor(
        pd.DataFrame(rows, columns=names, dtype="str"),
        key=f"grid {solver.id}",
        hide_index=True,
        column_config={name: make(name, max_chars=1, validate=f"^[1-{side}]?$") for name in names},
        alt="The Sudoku to be solved; an empty cell is a blank",
    )
    text = "".join(str(cell).strip() or "." if isinstance(cell, str) else "." for cell in edited.to_numpy().ravel())
    return solver.board.read(text, side, side)


def from_drawing(solver: Solver) -> Puzzle:
    """A maze painted with clicks."""
    from hrm_engine.data.puzzles.maze.board import FREE, GOAL, START, WALL, check_maze

    key = f"drawn {solver.id}"
    if key not in st.session_state:  # made anew each time that drawing is chosen
        begun = st.session_state.get(f"begun {solver.id}")
        empty = np.full((solver.height, solver.width), WALL, dtype=np.int64)
        empty[1:-1, 1:-1] = FREE
        if min(solver.height, solver.width) > 3:
            empty[1, 1], empty[-2, -2] = START, GOAL
        st.session_state[key] = empty.ravel() if begun is None else np.array(begun)
    tokens: npt.NDArray[np.int64] = st.session_state[key]
    st.segmented_control(
        "A click, or a box drawn with the mouse, makes", list(BRUSHES), default="Wall", required=True, key="brush"
    )
    colours = [solver.board.colours.get(token, "#868a91") for token in range(len(solver.board.cell_names))]
    # A fresh figure after each click: the next click on the same cell must count again.
    turn = st.session_state.setdefault(f"turn {solver.id}", 0)
    st.plotly_chart(
        maze_board(tokens.tolist(), solver.height, solver.width, colours, solver.board.cell_names),
        key=f"maze {solver.id} {turn}",
        width="content",
        config={**CONFIG, "displayModeBar": False},
        on_select=lambda: paint(solver, f"maze {solver.id} {turn}"),
        selection_mode=("points", "box"),
        alt="The maze to be solved",
    )
    return check_maze(tokens.copy(), solver.height, solver.width)


def paint(solver: Solver, key: str) -> None:
    """Put the brush's token into the cells that were clicked; a start or goal moves there from where it was."""
    event: Any = st.session_state.get(key)
    brush = st.session_state["brush"]  # as it is now: the page may not have been drawn since another was chosen
    cells = [int(place) for place in event["selection"]["point_indices"]] if event else []
    tokens = np.array(st.session_state[f"drawn {solver.id}"])
    cells = [cell for cell in cells if 0 <= cell < len(tokens)]
    if not cells:
        return
    token = BRUSHES[brush]
    if brush in ("Start", "Goal"):
        cells = cells[:1]
        tokens[tokens == token] = BRUSHES["Free"]
    tokens[cells] = token
    st.session_state[f"drawn {solver.id}"] = tokens
    st.session_state[f"turn {solver.id}"] += 1
