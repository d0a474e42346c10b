"""The page of all runs: find one, see how it does, open it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.app_pages.parts import STATE_CHIPS, chips_column, counted, nothing_yet, plain, search_box, ticked
from dashboard.app_pages.parts import table as drawn_table
from dashboard.queries.fields import has_words
from dashboard.queries.runs import STATES, RunRow, RunTable
from dashboard.resources import run_index, workspace

REFRESH_S = 3.0
# As long as metrics of many runs are still being read, a part of them each time.
READING_REFRESH_S = 0.7
_UNITS = "nats per token, of puzzles per cell"
_FIRST = ("name", "kind", "state", "step")
_LAST = ("train_loss", "eval_loss", "best_eval_loss", "best_step")
# What only some kinds of runs have is shown where a run in the table has it.
_OF_SOME = ("tokens_per_s", "row_segments_per_s")
_make = st.column_config
_COLUMNS: dict[str, Any] = {
    "name": _make.TextColumn("Run", width="medium"),
    "kind": _make.TextColumn("Kind", width="small"),
    "state": chips_column(STATE_CHIPS),
    "step": _make.NumberColumn("Step", format="%,d"),
    "train_loss": _make.NumberColumn("Train loss", format="%.3f", help=f"Last training row, {_UNITS}"),
    "exact_accuracy": _make.NumberColumn(
        "Exact", format="percent", help="Held-out puzzles solved in every cell, best evaluation"
    ),
    "eval_loss": _make.NumberColumn("Eval loss", format="%.3f", help=f"Last evaluation, {_UNITS}"),
    "best_eval_loss": _make.NumberColumn("Best eval loss", format="%.3f", help=f"Best evaluation, {_UNITS}"),
    "best_step": _make.NumberColumn("Best step", format="%,d", help="Step of the best evaluation"),
    "tokens_per_s": _make.NumberColumn("Tokens/s", format="%,d", help="Fresh label tokens per second, last row"),
    "row_segments_per_s": _make.NumberColumn(
        "Segments/s", format="%,d", help="Segments of puzzles per second, last row"
    ),
    "updated": _make.DatetimeColumn("Updated", format="distance"),
    "id": _make.TextColumn("Folder below artifacts/"),
}


def page() -> None:
    """Filters, then the table, which renews itself."""
    st.title("Runs", anchor=False)
    if not workspace().run_dirs():
        st.fragment(no_runs, run_every=REFRESH_S)()
        return
    search, states = filters()
    reading = not st.session_state.get("all_runs_read", False)
    st.fragment(table, run_every=READING_REFRESH_S if reading else REFRESH_S)(search, states, reading)


def no_runs() -> None:
    """What to do in an empty workspace, until the first run appears."""
    if workspace().run_dirs():
        st.rerun()
    plain(f"Workspace {workspace().root}")
    nothing_yet(
        "There is no run in this workspace yet.",
        "`make demo` trains a small model and shows it here: three minutes on two cores with bf16, twelve without. "
        "`lab train actv1` starts a training of your own. "
        "If your runs are somewhere else, set `HRM_LAB_ROOT` to that folder and start the dashboard again.",
    )


def filters() -> tuple[str, list[str]]:
    """What to look for and in which states; both stand in the link."""
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        search = search_box("Name, kind or folder", "stretch")
    states = right.pills(
        "State", STATES, selection_mode="multi", key="state", bind="query-params", label_visibility="collapsed"
    )
    return search, list(states)


def table(search: str, states: list[str], reading: bool) -> None:
    """The runs that match, as the files are at this moment. ``reading``: it is renewed quickly, until all are read."""
    opened = st.session_state.pop("opened_run", None)
    if opened is not None:
        st.switch_page("app_pages/run.py", query_params={"run": opened})
    runs = run_index(workspace().root).refresh()
    if runs.is_complete == reading:
        st.session_state["all_runs_read"] = runs.is_complete
        st.rerun()
    if not runs.rows:
        st.rerun()
    shown = [row for row in runs.rows if matches(row, search, states)]
    plain(summary(runs, len(shown)))
    if not shown:
        nothing_yet("No run matches.", "Shorten the search, or take a state out of the filter.")
        return
    # The click arrives with a row number. It counts in the rows that were sent, not in those of a later refresh.
    ids = [row.id for row in shown]
    drawn_table(
        RunTable(shown, runs.num_read).frame().assign(state=[[row.state] for row in shown]),
        "runs_table",
        _COLUMNS,
        "All runs that match the filter",
        most_rows=18,
        on_select=lambda: open_selected(ids),
        # Not a cell: a click on a column's title, to sort by it, selects one too (seen with streamlit 1.67).
        selection_mode="single-row",
        column_order=column_order(shown),
    )


def open_selected(ids: list[str]) -> None:
    """Remember which run was ticked; the redraw that follows opens it."""
    st.session_state["opened_run"] = ticked(st.session_state["runs_table"], ids)


def matches(row: RunRow, search: str, states: list[str]) -> bool:
    """Every word of the search stands in the run's folder or kind, and its state is one of those chosen (if any)."""
    return has_words(f"{row.id} {row.kind}", search) and (not states or row.state in states)


def summary(runs: RunTable, num_shown: int) -> str:
    """How many runs there are, how many of them are shown, and what is still being read."""
    running = sum(row.state == "running" for row in runs.rows)
    parts = [counted("run", len(runs.rows), num_shown), f"{running:,} running"]
    if not runs.is_complete:
        parts.append(f"best losses read for {runs.num_read:,}, the others follow")
    return " · ".join([*parts, "tick one to open it"])


def column_order(shown: list[RunRow]) -> list[str]:
    """The columns that these runs have; where puzzles are solved, how many exactly is the headline."""
    exact = ["exact_accuracy"] if any(row.exact_accuracy is not None for row in shown) else []
    speeds = [name for name in _OF_SOME if any(getattr(row, name) is not None for row in shown)]
    return [*_FIRST, *exact, *_LAST, *speeds, "updated", "id"]


if __name__ == "__main__":
    page()
