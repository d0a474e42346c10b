"""The page of a solver's evaluation: accuracy by difficulty, segments used, and failures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import formats
from dashboard.app_pages.boards import Board, boards, region_of
from dashboard.app_pages.parts import chart, nothing_yet, plain, sentence
from dashboard.app_pages.thinking import Thought, question, think
from dashboard.charts import puzzles as charts
from dashboard.queries.filecache import signature
from dashboard.queries.overview import PuzzleNumbers, kind_of_run
from dashboard.queries.puzzles import ROWS_FILE, EvaluatedRows, group_names
from dashboard.queries.solvers import Solver
from dashboard.resources import evaluated_rows, parameters, run_index, run_metrics, solvers, test_split, workspace
from hrm_engine.config import kinds
from hrm_engine.errors import HRMError
from hrm_engine.store.paths import ARGS_FILE, METRICS_FILE
from hrm_engine.store.runs import pick_run, run_id

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Puzzle

_BOARD_PX = 230
_BASELINES = {"copy": "copying the puzzle", "majority": "most frequent digit", "padding": "padding"}


def page() -> None:
    """Choose the run, then show what its evaluation says."""
    st.title("Puzzles", anchor=False)
    run_dir = chosen_run()
    if run_dir is None:
        return
    metrics = run_metrics(run_dir)
    metrics.refresh()
    latest = metrics.latest("eval")
    rows = evaluated_rows().get(run_dir / ROWS_FILE)
    headline(PuzzleNumbers.of(latest), is_full=bool(latest.get("full", False)))
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


def chosen_run() -> Path | None:
    """The puzzle run of the link, else the latest one; says what to do where there is none and gives None."""
    here = workspace()
    index = run_index(here.root)
    found = {
        run_id(path, here): path
        for path in index.run_dirs()
        if (path / ROWS_FILE).is_file() or kind_of_run(parameters().get(path / ARGS_FILE)) is kinds.PUZZLE
    }
    if not found:
        nothing_yet(
            "There is no puzzle run in this workspace yet.",
            "`lab train puzzle --config sudoku-4x4` makes one in a few minutes.",
        )
        return None
    wanted = st.query_params.get("run", "")
    named = pick_run(wanted, list(found.values()), here) if wanted else None
    if wanted and named is None:
        sentence(f"The run {wanted[:200]} is no puzzle run of this workspace (any more): choose one of those below")
    # Finished ones first: they have what this page is about.
    ids = sorted(found, key=lambda name: (not (found[name] / ROWS_FILE).is_file(), -_changed(found[name])))
    chosen = run_id(named, here) if named is not None else None if wanted else ids[0]
    st.session_state["puzzle_run"] = chosen
    st.selectbox("Run", ids, key="puzzle_run", on_change=choose, placeholder="Choose a run", width=420)
    return None if chosen is None else found[chosen]


def choose() -> None:
    """Put the run chosen in the box into the link."""
    st.query_params["run"] = st.session_state["puzzle_run"] or ""


def headline(numbers: PuzzleNumbers, *, is_full: bool) -> None:
    """The key figures, each above the score of an answer without a model."""
    row = st.grid("auto", min_column_width=150)
    card = partial(row.metric, border=True, height="stretch", delta_color="off", delta_arrow="off")
    without = (numbers.copy_exact_accuracy, numbers.majority_exact_accuracy, numbers.padding_exact_accuracy)
    best = max((value for value in without if value is not None), default=None)
    card(
        "Exactly solved",
        formats.share(numbers.exact_accuracy),
        delta=f"baseline {formats.share(best)}",
        help="Below it the best answer without a model",
    )
    card("When halting", formats.share(numbers.exact_accuracy_when_halting), help="At the segment at which it halts")
    card(
        "Cells right",
        formats.share(numbers.cell_accuracy),
        delta=f"copying {formats.share(numbers.copy_cell_accuracy)}",
        help=f"Most frequent digit of each cell: {formats.share(numbers.majority_cell_accuracy)}",
    )
    card("Segments used", formats.rate(numbers.act_steps_mean), help="On average until it halts by itself")
    card(
        "Halting right", formats.share(numbers.halt_accuracy), help="How often its halting head knows that it is right"
    )
    which = "whole test split" if is_full else "subset"
    card("Puzzles", formats.count(numbers.num_rows), delta=which, help="Those of the last evaluation")


def figures(rows: EvaluatedRows, latest: dict[str, object]) -> None:
    """Difficulty, segments, halting."""
    left, right = st.columns(2)
    with left:
        st.subheader("Accuracy by difficulty", anchor=False)
        if rows.is_rated:
            names = group_names(rows.by_rating)
            chart(charts.by_difficulty(rows.by_rating, names), "by_difficulty", "Exactly solved by difficulty rating")
            plain("Rating: guesses that a search needs, of mazes the steps. Bars: 95 % interval.")
        else:
            nothing_yet("These puzzles have no rating.", "Sudokus and mazes built here are rated; ARC tasks are not.")
    with right:
        st.subheader("Segments used", anchor=False)
        chart(charts.segments_used(rows.by_segments), "segments_used", "Puzzles by segments until it halts")
    left, right = st.columns(2)
    with left:
        by_segment(latest)
    with right:
        st.subheader("Halting calibration", anchor=False)
        chart(charts.calibration(rows.calibration), "calibration", "Halting confidence against exactness")
        plain("A marker's area grows with its puzzles; above the diagonal it is better than it thinks.")


def by_segment(latest: dict[str, object]) -> None:
    """Accuracy of each segment, with the baselines beside it."""
    exact, cells = (_shares(latest.get(f"{name}_by_segment")) for name in ("exact_accuracy", "cell_accuracy"))
    if not exact and not cells:
        return
    st.subheader("Accuracy by segment", anchor=False)
    numbers = PuzzleNumbers.of(latest)
    levels = {name: getattr(numbers, f"{key}_cell_accuracy") for key, name in _BASELINES.items()}
    known = {name: level for name, level in levels.items() if level}
    chart(charts.by_segment(exact, cells, known), "by_segment", "Accuracy after each segment, with baselines")


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
    table = rows.failures if rows.is_rated else rows.failures.drop(columns="rating")
    event = st.dataframe(
        table,
        key=f"failures {run_dir}",
        hide_index=True,
        height=36 * (min(shown, 8) + 1),
        row_height=36,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "row": make.NumberColumn("Test puzzle", format="%d"),
            "rating": make.NumberColumn("Rating", format="%g"),
            "cell_accuracy": make.NumberColumn("Cells right", format="percent"),
            "segments": make.NumberColumn("Segments", format="%d"),
            "confidence": make.NumberColumn("Confidence", format="percent", help="Of its halting head, at the end"),
            "loss": make.NumberColumn("Loss", format="%.3f", help="Nats per cell"),
        },
        placeholder=formats.DASH,
        alt="Puzzles that were not solved exactly, the hardest first",
    )
    ticked = event["selection"]["rows"]
    if ticked and ticked[0] < shown:
        failure(run_dir, int(rows.failures.iloc[ticked[0]]["row"]))


def failure(run_dir: Path, number: int) -> None:
    """One failed puzzle, the solver's present answer, and the solution."""
    solver = solvers(workspace().root).of(run_dir)
    if solver is None:
        sentence("The bundle of this run is not saved yet, so its puzzles cannot be drawn: wait for its end")
        return
    try:
        version = None if solver.dataset is None else signature(solver.dataset / "test/dataset.json")
        puzzle = test_split(solver, version).puzzle(number)
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


def _changed(run_dir: Path) -> int:
    found = signature(run_dir / METRICS_FILE)
    return 0 if found is None else found[1]


if __name__ == "__main__":
    page()
