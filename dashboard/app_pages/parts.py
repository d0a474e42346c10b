"""Small pieces that several pages show. Text from files goes through ``st.text`` and ``st.code``, never Markdown."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.charts.style import BLUE, CONFIG
from dashboard.formats import DASH
from dashboard.queries.filecache import signature
from dashboard.resources import workspace
from hrm_engine.config.forms import MOST, Field
from hrm_engine.errors import HRMError
from hrm_engine.store.paths import METRICS_FILE
from hrm_engine.store.runs import pick_run, run_id, shared_name

T = TypeVar("T")

BadgeColour = Literal["blue", "green", "gray", "red", "orange"]

STATE_COLOURS: dict[str, BadgeColour] = {
    "running": "blue",
    "finished": "green",
    "diverged": "orange",
    "stopped": "gray",
    "failed": "red",
    "dead": "orange",
    "unknown": "gray",
}
# The same in the table of runs, whose cells take no theme colours: pale enough for dark text, dark enough to be seen.
STATE_CHIPS = {
    "running": "#9cc8ea",
    "finished": "#9ed8c2",
    "diverged": "#f3d38a",
    "stopped": "#c9ced6",
    "failed": "#f6b8b8",
    "dead": "#f1c196",
    "unknown": "#dcdfe4",
}

# Of experts and goals.
USE_CHIPS = {"active": "#9cc8ea", "inactive": "#c9ced6", "frozen": "#9ed8c2", "attached": "#f1c196"}

USE_COLOURS: dict[str, BadgeColour] = {"active": "blue", "inactive": "gray", "frozen": "green", "attached": "orange"}
_ROW_PX = 36

_STYLE = """<style>
[data-testid="stText"] { font-size: 0.9rem; opacity: 0.75; }
.st-key-run_title [data-testid="stText"] { font-size: 1.6rem; font-weight: 600; opacity: 1; overflow-wrap: anywhere; }
[class*="st-key-sentence"] { border-left: 4px solid #d1651a; }
[class*="st-key-sentence"] [data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; opacity: 1; }
.st-key-card_title [data-testid="stText"] { font-size: 1.25rem; font-weight: 600; opacity: 1; overflow-wrap: anywhere; }
[class*="st-key-words"] [data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; opacity: 1; }
.boards { display: flex; flex-wrap: wrap; gap: 0.9rem 1.1rem; align-items: flex-start; }
.boards figure { margin: 0; max-width: 100%; }
.boards img { display: block; max-width: 100%; height: auto; }
.boards figcaption { font-size: 0.82rem; opacity: 0.75; margin-bottom: 0.25rem; font-variant-numeric: tabular-nums; }
.boards figure.shown figcaption { opacity: 1; font-weight: 600; }
.written { font-size: 1.05rem; line-height: 1.75; overflow-wrap: anywhere; }
.written span { border-radius: 0.2rem; padding: 0.12rem 0; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
</style>"""

_LOGO = f"""<svg xmlns="http://www.w3.org/2000/svg" width="116" height="28" viewBox="0 0 116 28">
<g fill="none" stroke="{BLUE}" stroke-width="2.4"><circle cx="11" cy="14" r="8.5"/><circle cx="11" cy="14" r="3"/></g>
<text x="28" y="20" font-family="sans-serif" font-weight="600" font-size="17" fill="{BLUE}">HRM Lab</text>
</svg>"""


def house_style() -> None:
    """Name, and the few rules that the theme has no setting for. Constants: no text from a file goes through here."""
    st.logo(_LOGO, size="large")
    st.html(_STYLE)


def plain(text: str) -> None:
    """Text as it is, small and quiet."""
    st.text(text)


def card_title(text: str, states: Sequence[str]) -> None:
    """The name of an expert or a goal, its states beside it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(key="card_title", width="content"):
            st.text(text)
        for state in states:
            st.badge(state, color=USE_COLOURS[state])


def counted(noun: str, total: int, shown: int) -> str:
    """``1 run``, ``5 runs`` or, where a filter leaves some out, ``2 of 5 runs``."""
    number = f"1 {noun}" if total == 1 else f"{total:,} {noun}s"
    return number if shown == total else f"{shown:,} of {number}"


def chart(figure: go.Figure, key: str, description: str, title: str = "") -> None:
    """A figure across the page, below its title. ``description`` is what a screen reader says of it."""
    if title:
        st.subheader(title, anchor=False)
    st.plotly_chart(figure, key=key, config=CONFIG, alt=description)


def problem_box(headline: str, details: str = "") -> None:
    """Something is wrong and the page says so; ``details`` may hold anything."""
    st.error(headline)
    if details:
        st.code(details, language=None, wrap_lines=True)


def sentence(text: str, key: str = "sentence") -> None:
    """What is wrong and what to do, in one sentence that may quote anything; quieter than an error of the program.

    Where a page may show several, each has a ``key`` that begins with ``sentence``.
    """
    with st.container(border=True, key=key):
        st.text(text if text.endswith((".", "!", "?")) else f"{text}.")


def nothing_yet(headline: str, advice: str) -> None:
    """An empty state: what is missing, and what to do. Both are fixed sentences."""
    with st.container(border=True):
        st.markdown(f"**{headline}**")
        st.markdown(advice)


def cards(width: int = 150, **common: Any) -> Callable[..., object]:
    """A row of key figures: the function that puts another one into it."""
    return partial(st.grid("auto", min_column_width=width).metric, border=True, height="stretch", **common)


def search_box(placeholder: str, width: int | Literal["stretch"], *, label: str = "Search", key: str = "q") -> str:
    """Text of a search field. That of the key ``q`` stands in the link."""
    text = st.text_input(
        label,
        key=key,
        bind="query-params" if key == "q" else None,
        live=True,
        max_chars=200,
        placeholder=placeholder,
        label_visibility="collapsed",
        width=width,
    )
    return text or ""


def table(
    frame: pd.DataFrame, key: str, columns: Mapping[str, Any], alt: str, *, most_rows: int | None = None, **options: Any
) -> Any:
    """A table, and what is selected in it; with ``most_rows`` at most as high as so many rows."""
    if most_rows is not None:
        options |= {"height": _ROW_PX * (min(len(frame), most_rows) + 1), "row_height": _ROW_PX}
    return st.dataframe(frame, key=key, hide_index=True, column_config=columns, placeholder=DASH, alt=alt, **options)


def chips_column(colours: Mapping[str, str], width: int | Literal["small"] = "small") -> Any:
    """The column of states, each in its colour."""
    names, values = list(colours), list(colours.values())
    return st.column_config.MultiselectColumn("State", options=names, color=values, width=width)


def choice_table(
    frame: pd.DataFrame,
    ids: Sequence[T],
    key: str,
    columns: Mapping[str, Any],
    alt: str,
    *,
    most_rows: int,
    param: str = "",
    **options: Any,
) -> T | None:
    """A table of which one row can be ticked; the one of ``ids`` that is.

    With ``param`` the choice stands in the link under that name.
    """
    # A tick counts rows: with other rows the table is another one, so that the tick stays on its subject.
    key = f"{key} {zlib.crc32(' '.join(map(str, ids)).encode())}"
    options |= {"selection_mode": "single-row", "on_select": "rerun"}
    if param:
        rows = [at for at, name in enumerate(ids) if str(name) == st.query_params.get(param, "")]
        options["selection_default"] = {"selection": {"rows": rows}}
        options["on_select"] = lambda: set_link(param, ticked(st.session_state[key], ids))
    return ticked(table(frame, key, columns, alt, most_rows=most_rows, **options), ids)


def ticked(event: Any, ids: Sequence[T]) -> T | None:
    """The one of ``ids`` whose row is ticked in a table."""
    rows = event["selection"]["rows"]
    return ids[rows[0]] if rows and 0 <= rows[0] < len(ids) else None


def set_link(param: str, value: object) -> None:
    """Put a value into the link; nothing takes it out."""
    if value is None or value == "":
        st.query_params.pop(param, None)
    else:
        st.query_params[param] = str(value)


def link_choice(param: str, key: str, *dropped: str) -> None:
    """Put the value of the control ``key`` into the link; the params ``dropped`` belong to the choice before."""
    set_link(param, st.session_state[key])
    for name in dropped:
        st.query_params.pop(name, None)


def linked_choice(
    label: str,
    items: Mapping[str, T],
    runs: Sequence[Path],
    what: str,
    *,
    param: str,
    key: str,
    dropped: Sequence[str] = (),
    width: int | Literal["stretch"] = "stretch",
) -> T | None:
    """A box of ``items``, by the ids of their runs, and the one that the link names; without a name, the first.

    Says so and gives None if the link names none of them: ``what`` are the words for it. Names are looked up among
    ``runs``; ``dropped`` as for :func:`link_choice`.
    """
    name = st.query_params.get(param, "")
    run = pick_run(name, runs, workspace())
    chosen = next(iter(items)) if not name else None if run is None else run_id(run, workspace())
    if chosen not in items:
        gone = f"The {param} {name[:200]} is {what} of the workspace (any more): choose a {label.lower()} below"
        sentence(shared_name(name, runs, workspace()) or gone)
        chosen = None
    st.session_state[key] = chosen
    st.selectbox(
        label,
        list(items),
        key=key,
        on_change=link_choice,
        args=(param, key, *dropped),
        placeholder=f"Choose a {label.lower()}",
        width=width,
    )
    return None if chosen is None else items[chosen]


def chosen_run(
    runs: Sequence[Path],
    what: str,
    advice: tuple[str, str],
    *,
    key: str,
    dropped: Sequence[str] = (),
    last: Callable[[Path], bool] = lambda run: False,
) -> Path | None:
    """The one of ``runs`` that the link names, else the one written last; says what to do where there is none.

    ``last`` are runs that come after all others; ``advice`` is headline and advice where there is no run; the rest as
    for :func:`linked_choice`.
    """
    if not runs:
        nothing_yet(*advice)
        return None

    def age(run: Path) -> tuple[bool, int]:
        state = signature(run / METRICS_FILE)
        return last(run), 0 if state is None else -state[1]

    items = {run_id(run, workspace()): run for run in sorted(runs, key=age)}
    return linked_choice("Run", items, runs, what, param="run", key=key, dropped=dropped, width=420)


def control(field: Field, *, key: str | None = None, disabled: bool = False) -> Any:
    """The control of a field, and its value."""
    common: dict[str, Any] = {"key": key or field.name, "help": field.help, "disabled": disabled}
    number = int if field.is_whole else float
    value, step = number(field.value), number(field.step)
    if field.is_slider:
        assert field.low is not None
        assert field.high is not None
        return st.slider(field.label, number(field.low), number(field.high), value, step, **common)
    low = None if field.low is None else number(field.low)
    high = number(MOST if field.high is None else field.high)
    return st.number_input(field.label, low, high, value, step, **common)


def submitted(key: str, question: object, is_pressed: bool, make: Callable[[], T], refusal: str) -> T | None:
    """The answer to ``question`` that was made at the last press; None if there is none, or another was asked since.

    A press makes it anew; if that is refused, the page says why, after the words ``refusal``.
    """
    if is_pressed:
        st.session_state.pop(key, None)
        try:
            st.session_state[key] = make()
        except HRMError as problem:
            sentence(f"{refusal}: {problem}")
        st.session_state[f"question of {key}"] = question
    answer: T | None = st.session_state.get(key)
    return answer if st.session_state.get(f"question of {key}") == question else None
