"""The page of a solver's evaluation: accuracy by difficulty, segments used, and failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import cards, chart, choice_table, chosen_run, nothing_yet, plain, sentence
from dashboard.app_pages.thinking import Board, Thought, boards, question, region_of, think
from dashboard.charts import puzzles as charts
from dashboard.queries.bundles import Solver, solver_of
from dashboard.queries.fields import finite
from dashboard.queries.folder import parameters
from dashboard.queries.overview import kind_of_run
from dashboard.queries.puzzles import ROWS_FILE, EvaluatedRows, evaluated_rows, group_names
from dashboard.resources import fresh_metrics, test_puzzles, workspace
from hrm_engine.config import kinds
from hrm_engine.errors import HRMError

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Puzzle

_BOARD_PX = 230
_BASELINES = {"copy": "copying the puzzle", "majority": "most frequent digit", "padding": "padding"}


def page() -> None:
    """Choose the run, then show what its evaluation says."""
    st.title("Puzzles", anchor=False)
    run_dir = chosen_run(
        [path for path in workspace().run_dirs() if is_of_puzzles(path)],
        "no puzzle run",
        (
            "There is no puzzle run in this workspace yet.",
            "`lab train puzzle --config sudoku-4x4` makes one in a few minutes.",
        ),
        key="puzzle_run",
        last=lambda path: not (path / ROWS_FILE).is_file(),  # what is not finished lacks what this page is about
    )
    if run_dir is None:
        return
    metrics = fresh_metrics(run_dir)
    latest = metrics.latest("eval")
    rows = evaluated_rows(run_dir)
    headline(latest)
    if rows is not None and rows.skipped_lines:
        lines = "1 line" if rows.skipped_lines == 1 else f"{rows.skipped_lines:,} lines"
        st.warning(f"{lines} of evaluation/rows.jsonl could not be read and were skipped; everything else is shown.")
    if rows is None or not rows.num_rows:
        by_segment(latest)
        nothing_yet(
            "There is no full evaluation of this run yet.",
            "A run makes one over the whole test split when it ends. `--no-full-eval` switches it off, and a run that "
            "is stopped makes it when it is resumed and reaches its end.",
        )
        return
    figures(rows, latest)
    failures(run_dir, rows)


def is_of_puzzles(run_dir: Path) -> bool:
    """Whether a run trains a solver."""
    return (run_dir / ROWS_FILE).is_file() or kind_of_run(parameters(run_dir)) is kinds.PUZZLE


def headline(latest: Mapping[str, Any]) -> None:
    """The key figures of the last evaluation, each above the score of an answer without a model."""

    def share(field: str) -> str:
        return formats.share(latest.get(field))

    card = cards(delta_color="off", delta_arrow="off")
    without = [finite(latest.get(f"{name}_exact_accuracy")) for name in _BASELINES]
    best = formats.share(max((value for value in without if value is not None), default=None))
    note = "Below it the best answer without a model"
    card("Exactly solved", share("exact_accuracy"), delta=f"baseline {best}", help=note)
    card("When halting", share("exact_accuracy_when_halting"), help="At the segment at which it halts")
    copying, note = share("copy_cell_accuracy"), f"Most frequent digit of each cell: {share('majority_cell_accuracy')}"
    card("Cells right", share("cell_accuracy"), delta=f"copying {copying}", help=note)
    card("Segments used", formats.rate(latest.get("act_steps_mean")), help="On average until it halts by itself")
    card("Halting right", share("halt_accuracy"), help="How often its halting head knows that it is right")
    which, whose = ("whole test split", "bundle") if latest.get("full") else ("subset", "last evaluation")
    at = formats.count(latest.get("weights_step") or latest.get("step"))
    note = f"Those of the {whose}, with the weights of step {at}"
    card("Puzzles", formats.count(latest.get("num_rows")), delta=which, help=note)


def figures(rows: EvaluatedRows, latest: Mapping[str, Any]) -> None:
    """Difficulty, segments, halting."""
    left, right = st.columns(2)
    with left:
        if rows.is_rated:
            figure, words = charts.by_difficulty(rows.by_rating, group_names(rows.by_rating)), "Accuracy by difficulty"
            chart(figure, "by_difficulty", "Exactly solved by difficulty rating", words)
            plain("Rating: guesses that a search needs, of mazes the steps. Bars: 95 % interval.")
        else:
            st.subheader("Accuracy by difficulty", anchor=False)
            nothing_yet("These puzzles have no rating.", "Sudokus and mazes built here are rated; ARC tasks are not.")
    with right:
        figure = charts.segments_used(rows.by_segments)
        chart(figure, "segments_used", "Puzzles by segments until it halts", "Segments used")
    left, right = st.columns(2)
    with left:
        by_segment(latest)
    with right:
        figure = charts.calibration(rows.calibration)
        chart(figure, "calibration", "Halting confidence against exactness", "Halting calibration")
        plain("A marker's area grows with its puzzles; above the diagonal it is better than it thinks.")


def by_segment(latest: Mapping[str, Any]) -> None:
    """Accuracy of each segment, with the baselines beside it."""
    exact, cells = (_shares(latest.get(f"{name}_by_segment")) for name in ("exact_accuracy", "cell_accuracy"))
    if not exact and not cells:
        return
    levels = {name: finite(latest.get(f"{key}_cell_accuracy")) for key, name in _BASELINES.items()}
    known = {name: level for name, level in levels.items() if level}
    figure = charts.by_segment(exact, cells, known)
    chart(figure, "by_segment", "Accuracy after each segment, with baselines", "Accuracy by segment")


def failures(run_dir: Path, rows: EvaluatedRows) -> None:
    """The hardest puzzles that it did not solve; one that is ticked is drawn."""
    st.subheader("Hardest failures", anchor=False)
    if not rows.num_failures:
        plain(f"All {rows.num_rows:,} puzzles were solved exactly.")
        return
    shown = len(rows.failures)
    part = "" if shown == rows.num_failures else f", the first {shown:,} of them"
    plain(f"{rows.num_failures:,} of {rows.num_rows:,} puzzles are not solved exactly{part}. Tick one to see it.")
    make = st.column_config
    columns = {
        "row": make.NumberColumn("Test puzzle", format="%d"),
        "rating": make.NumberColumn("Rating", format="%g"),
        "cell_accuracy": make.NumberColumn("Cells right", format="percent"),
        "segments": make.NumberColumn("Segments", format="%d"),
        "confidence": make.NumberColumn("Confidence", format="percent", help="Of its halting head, at the end"),
        "loss": make.NumberColumn("Loss", format="%.3f", help="Nats per cell"),
    }
    frame = rows.failures if rows.is_rated else rows.failures.drop(columns="rating")
    numbers = [int(number) for number in rows.failures["row"]]
    alt = "Puzzles that were not solved exactly, the hardest first"
    number = choice_table(frame, numbers, f"failures {run_dir}", columns, alt, most_rows=8)
    if number is not None:
        failure(run_dir, number)


def failure(run_dir: Path, number: int) -> None:
    """One failed puzzle, the solver's present answer, and the solution."""
    solver = solver_of(run_dir, workspace())
    if solver is None:
        sentence("The bundle of this run is not saved yet, so its puzzles cannot be drawn: wait for its end")
        return
    try:
        puzzle = test_puzzles(solver).puzzle(number)
        thought = answered(solver, puzzle)
    except HRMError as problem:
        sentence(f"Puzzle {number} cannot be shown: {problem}")
        return
    last = thought.trace.segments[-1].prediction
    shown = [Board(f"Puzzle {number}", puzzle.inputs), Board("Answer", last, wrong=puzzle.wrong(last), is_shown=True)]
    if puzzle.solution is not None:
        shown.append(Board("Solution", puzzle.solution))
    boards(solver, puzzle, shown, side_px=_BOARD_PX, region=region_of(solver, [board.tokens for board in shown]))
    link = {"bundle": solver.id, "puzzle": str(number)}
    st.page_link("app_pages/playground.py", label="Watch it think in the Playground", query_params=link)


def answered(solver: Solver, puzzle: Puzzle) -> Thought:
    """The solver's answer, kept until another puzzle is ticked. Raises HRMError."""
    kept: Thought | None = st.session_state.get("failure")
    if kept is None or kept.question != question(solver, puzzle, solver.segments, 1):
        kept = think(solver, puzzle, segments=solver.segments)
        st.session_state["failure"] = kept
    return kept


def _shares(values: object) -> list[float]:
    numbers = values if isinstance(values, list) else []
    return [float(value) for value in numbers if isinstance(value, (int, float)) and 0 <= value <= 1]


if __name__ == "__main__":
    page()
