"""The page of goals: what is to be reached, which experts serve it, and what of it steers the routing now."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from dashboard.app_pages.changing import (
    OPEN_ICON,
    Dialogs,
    answer,
    ask,
    ask_button,
    confirmation,
    files_seen,
    open_dialog,
    start_watching,
    tell,
    toggle_button,
    undo,
)
from dashboard.app_pages.expert_dialogs import unlink
from dashboard.app_pages.parts import (
    USE_CHIPS,
    card_title,
    chips_column,
    choice_table,
    counted,
    nothing_yet,
    plain,
    search_box,
    sentence,
)
from dashboard.queries.experts import ServedGoal, goal_frame, matching, served_goals
from dashboard.resources import workspace
from hrm_engine.errors import HRMError
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import printable

_MAX_LISTED = 50
_make = st.column_config
_COLUMNS: dict[str, Any] = {
    "id": _make.NumberColumn("Id", format="%d", width=50),
    "text": _make.TextColumn("Goal", width="large"),
    "state": chips_column(USE_CHIPS),
    "experts": _make.ListColumn("Experts", width="medium"),
    "created": _make.DatetimeColumn("Created", format="distance"),
}


def page() -> None:
    """The table of goals, and the chosen one."""
    st.title("Goals", anchor=False)
    tell()
    seen = files_seen()
    goals = Goals(workspace())
    try:
        # The registry too: what links experts must be able to read it.
        ids = [card.expert_id for card in goals.registry.read().cards]
        rows = served_goals(goals)
    except HRMError as problem:
        sentence(f"The goals cannot be shown, and nothing can be changed: {problem}")
    else:
        show(rows, ids)
        open_dialog(DIALOGS)
    start_watching(seen)


def show(goals: list[ServedGoal], ids: list[str]) -> None:
    """All goals, or what to do where there is none; ``ids`` are those of all experts."""
    if not goals:
        nothing_yet(
            "There is no goal in this workspace yet.",
            "`lab goals add TEXT` adds one, and so does *New goal*. Experts that serve a goal get more of the tokens "
            "while it is active, in a training or generation that is told so.",
        )
        ask_button("New goal", "add")
        return
    table(goals)
    if name := st.query_params.get("goal", ""):
        chosen = next((served for served in goals if str(served.goal.id) == name), None)
        if chosen is None:
            sentence(f"There is no goal {printable(name[:100])!a} (any more): tick one in the table")
        else:
            detail(chosen, ids)


def table(goals: list[ServedGoal]) -> None:
    """The goals that match the search; a ticked one is shown below."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        search = search_box("Words of a goal, or an expert", 420)
        ask_button("New goal", "add")
    shown = matching(goals, search)
    active = sum(served.goal.active for served in goals)
    plain(f"{counted('goal', len(goals), len(shown))} · {active:,} active · tick one to change it")
    if not shown:
        nothing_yet("No goal matches.", "Shorten the search.")
        return
    ids = [served.goal.id for served in shown]
    alt = "Goals that match the search"
    choice_table(goal_frame(shown), ids, "goals", _COLUMNS, alt, most_rows=12, param="goal")


def detail(served: ServedGoal, ids: list[str]) -> None:
    """One goal with its experts, and what can be done with it."""
    goal = served.goal
    st.divider()
    card_title(f"Goal {goal.id}", ["active" if goal.active else "inactive"])
    with st.container(key="words_goal"):
        st.text(printable(goal.text))
    with st.container(horizontal=True):
        kind = "deactivate_goal" if goal.active else "activate_goal"
        about = str(goal.id)
        toggle_button("Deactivate" if goal.active else "Activate", partial(ask, kind, about), f"activate {about}")
        ask_button("Remove", "remove", about)
        if any(expert_id not in served.experts for expert_id in ids):  # the last one: it moves no other
            ask_button("Link expert", "link_expert", about)
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
            undo("Unlink", "unlink", str(goal.id), expert_id)
    if len(served.experts) > _MAX_LISTED:
        plain(f"and {len(served.experts) - _MAX_LISTED:,} more")


def add() -> None:
    """A new goal, with an expert from the start if one is chosen."""
    goals = Goals(workspace())
    ids = [card.expert_id for card in goals.registry.read().cards]
    text = st.text_area("What is wanted", key="goal_text", max_chars=2000, height=110)
    expert_id = st.selectbox(
        "Expert that serves it", ids, index=None, key="goal_expert", placeholder="none yet", disabled=not ids
    )

    def change() -> None:
        st.query_params["goal"] = str(goals.add(text, expert_id=expert_id).id)

    answer("Add", change, "The goal is added")


def remove(goal_id: str) -> None:
    """Remove it with its links."""
    goals = Goals(workspace())
    goal = goals.get(int(goal_id))
    st.text(f"Goal {goal.id} and its links to experts will be removed. This cannot be undone.")
    with st.container(border=True, key="words_removed"):
        st.text(printable(goal.text))

    def change() -> None:
        goals.remove(goal.id)
        st.query_params.pop("goal", None)

    answer("Remove", change, f"Goal {goal.id} is removed")


def link_expert(goal_id: str) -> None:
    """Let one more expert serve it."""
    goals = Goals(workspace())
    serving = goals.get_expert(int(goal_id))
    ids = [card.expert_id for card in goals.registry.read().cards if card.expert_id not in serving]
    expert_id = st.selectbox("Expert", ids, index=None, key=f"expert_for {goal_id}", placeholder="Choose an expert")
    plain("While the goal is active, this expert gets more of the tokens.")
    change = partial(goals.link_expert, int(goal_id), expert_id or "")
    answer("Link", change, f"`{expert_id}` serves goal {goal_id}", disabled=expert_id is None)


_activate = confirmation(
    "Activate",
    "Goal {0} will draw tokens to its experts again, where a training or generation follows goals.",
    lambda goal_id: Goals(workspace()).set_active(int(goal_id), True),
    "Goal {0} is active",
)
_deactivate = confirmation(
    "Deactivate",
    "Goal {0} will no longer draw tokens to its experts. It stays with its links.",
    lambda goal_id: Goals(workspace()).set_active(int(goal_id), False),
    "Goal {0} is inactive",
)
DIALOGS: Dialogs = {
    "add": ("New goal", add),
    "activate_goal": ("Activate goal", _activate),
    "deactivate_goal": ("Deactivate goal", _deactivate),
    "remove": ("Remove goal", remove),
    "link_expert": ("Link expert", link_expert),
    "unlink": ("Unlink expert", unlink),
}


if __name__ == "__main__":
    page()
