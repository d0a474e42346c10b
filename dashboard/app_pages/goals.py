"""The page of goals: what is wanted, which experts serve it, and what of it steers the routing now."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from dashboard.app_pages.changing import (
    OPEN_ICON,
    Dialogs,
    answer,
    ask_button,
    note_seen,
    open_dialog,
    start_watching,
    tell,
    undo,
)
from dashboard.app_pages.expert_dialogs import unlink
from dashboard.app_pages.parts import USE_CHIPS, nothing_yet, plain, sentence
from dashboard.formats import DASH
from dashboard.queries.goals import ServedGoal, goal_frame, matching, served_goals
from dashboard.resources import workspace
from hrm_engine.errors import HRMError
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import printable

_TABLE_ROWS = 12
_ROW_PIXELS = 36
_MAX_LISTED = 50


def page() -> None:
    """The table of goals, and the chosen one."""
    st.title("Goals", anchor=False)
    tell()
    note_seen()
    goals = Goals(workspace())
    try:
        # The registry too: what links experts must be able to read it.
        ids = [card.expert_id for card in goals.registry.read().cards]
        found = served_goals(goals)
    except HRMError as problem:
        sentence(f"The goals cannot be shown, and nothing can be changed: {problem}")
    else:
        show(found, ids)
        open_dialog(DIALOGS)
    start_watching()


def show(found: list[ServedGoal], ids: list[str]) -> None:
    """All goals, or what to do where there is none."""
    if not found:
        nothing_yet(
            "There is no goal in this workspace yet.",
            "`lab goals add TEXT` adds one, and so does *New goal*. Experts that serve a goal get more of the tokens "
            "while it is active, in a training or generation that is told so.",
        )
        ask_button("New goal", "add")
        return
    table(found)
    wanted = st.query_params.get("goal", "")
    if not wanted:
        return
    chosen = next((served for served in found if str(served.goal.id) == wanted), None)
    if chosen is None:
        sentence(f"There is no goal {printable(wanted[:100])!a} (any more): tick one in the table")
        return
    detail(chosen, ids)


def table(found: list[ServedGoal]) -> None:
    """The goals that the search finds; a ticked one is shown below."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        search = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            live=True,
            max_chars=200,
            placeholder="Words of a goal, or an expert",
            label_visibility="collapsed",
            width=420,
        )
        ask_button("New goal", "add")
    shown = matching(found, search or "")
    active = sum(served.goal.active for served in found)
    number = "1 goal" if len(found) == 1 else f"{len(found):,} goals"
    part = number if len(shown) == len(found) else f"{len(shown):,} of {number}"
    plain(f"{part} · {active:,} active · tick one to change it")
    if not shown:
        nothing_yet("No goal matches.", "Shorten the search.")
        return
    numbers = [served.goal.id for served in shown]
    wanted = st.query_params.get("goal", "")
    ticked = [at for at, number in enumerate(numbers) if str(number) == wanted]
    key = f"goals {hash(tuple(numbers))}"
    st.session_state["shown_goals"] = (key, numbers)
    st.dataframe(
        goal_frame(shown),
        key=key,
        hide_index=True,
        height=_ROW_PIXELS * (min(len(shown), _TABLE_ROWS) + 1),
        row_height=_ROW_PIXELS,
        on_select=choose_in_table,
        selection_mode="single-row",
        selection_default={"selection": {"rows": ticked}},
        column_config=columns(),
        placeholder=DASH,
        alt="Goals that match the search",
    )


def choose_in_table() -> None:
    """Show the goal of the ticked row; none if the tick was taken away."""
    key, numbers = st.session_state["shown_goals"]
    rows = st.session_state[key]["selection"]["rows"]
    if rows and 0 <= rows[0] < len(numbers):
        st.query_params["goal"] = str(numbers[rows[0]])
    else:
        st.query_params.pop("goal", None)


def columns() -> dict[str, Any]:
    """Titles of the table."""
    make = st.column_config
    return {
        "id": make.NumberColumn("Id", format="%d", width=50),
        "text": make.TextColumn("Goal", width="large"),
        "state": make.MultiselectColumn(
            "State", options=list(USE_CHIPS), color=list(USE_CHIPS.values()), width="small"
        ),
        "experts": make.ListColumn("Experts", width="medium"),
        "created": make.DatetimeColumn("Created", format="distance"),
    }


def detail(served: ServedGoal, ids: list[str]) -> None:
    """One goal with its experts, and what can be done with it."""
    goal = served.goal
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(key="card_title", width="content"):
            st.text(f"Goal {goal.id}")
        if goal.active:
            st.badge("active", color="blue")
        else:
            st.badge("inactive", color="gray")
    with st.container(key="words_goal"):
        st.text(printable(goal.text))
    with st.container(horizontal=True):
        kind = "deactivate_goal" if goal.active else "activate_goal"
        ask_button("Deactivate" if goal.active else "Activate", kind, str(goal.id))
        if any(expert_id not in served.experts for expert_id in ids):
            ask_button("Link expert", "link_expert", str(goal.id))
        ask_button("Remove", "remove", str(goal.id))
    st.subheader("Experts", anchor=False)
    if not served.experts:
        plain("No expert serves it, so it steers nothing.")
        if not ids:
            plain("There is no expert yet: lab train actv1 --expert-id NAME --dataset-file FILE")
    for expert_id in served.experts[:_MAX_LISTED]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(printable(expert_id) if expert_id in ids else f"{printable(expert_id)} (not in the registry)")
            if expert_id in ids:
                link = {"expert": expert_id}
                st.page_link("app_pages/experts.py", label="Open", icon=OPEN_ICON, query_params=link)
            undo("Unlink", "unlink", f"{goal.id} {expert_id}")
    if len(served.experts) > _MAX_LISTED:
        plain(f"and {len(served.experts) - _MAX_LISTED:,} more")


def add(_: str) -> None:
    """A new goal, with an expert from the start if one is chosen."""
    goals = Goals(workspace())
    try:
        ids = [card.expert_id for card in goals.registry.read().cards]
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return
    text = st.text_area("What is wanted", key="goal_text", max_chars=2000, height=110)
    expert_id = st.selectbox(
        "Expert that serves it", ids, index=None, key="goal_expert", placeholder="none yet", disabled=not ids
    )

    def change() -> None:
        st.query_params["goal"] = str(goals.add(text, expert_id=expert_id).id)

    answer("Add", change, "The goal is added")


def activate_goal(subject: str) -> None:
    """Let it steer the routing."""
    st.text(f"Goal {subject} will draw tokens to its experts again, where a training or generation follows goals.")
    answer("Activate", partial(Goals(workspace()).activate, int(subject)), f"Goal {subject} is active")


def deactivate_goal(subject: str) -> None:
    """Let it steer nothing."""
    st.text(f"Goal {subject} will no longer draw tokens to its experts. It stays with its links.")
    answer("Deactivate", partial(Goals(workspace()).deactivate, int(subject)), f"Goal {subject} is inactive")


def remove(subject: str) -> None:
    """Remove it with its links."""
    goals = Goals(workspace())
    try:
        goal = goals.get(int(subject))
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return
    st.text(f"Goal {goal.id} and its links to experts will be removed. This cannot be undone.")
    with st.container(border=True, key="words_removed"):
        st.text(printable(goal.text))

    def change() -> None:
        goals.remove(goal.id)
        st.query_params.pop("goal", None)

    answer("Remove", change, f"Goal {goal.id} is removed")


def link_expert(subject: str) -> None:
    """Let one more expert serve it."""
    goals = Goals(workspace())
    try:
        serving = goals.get_expert(int(subject))
        ids = [card.expert_id for card in goals.registry.read().cards if card.expert_id not in serving]
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return
    expert_id = st.selectbox("Expert", ids, index=None, key=f"expert_for {subject}", placeholder="Choose an expert")
    plain("While the goal is active, this expert gets more of the tokens.")
    change = partial(goals.link_expert, int(subject), expert_id or "")
    answer("Link", change, f"`{expert_id}` serves goal {subject}", disabled=expert_id is None)


DIALOGS: Dialogs = {
    "add": ("New goal", add),
    "activate_goal": ("Activate goal", activate_goal),
    "deactivate_goal": ("Deactivate goal", deactivate_goal),
    "remove": ("Remove goal", remove),
    "link_expert": ("Link expert", link_expert),
    "unlink": ("Unlink expert", unlink),
}


if __name__ == "__main__":
    page()
