"""The page of experts: how many there are, their hierarchy, each one's card, and what routers do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard import formats
from dashboard.app_pages import expert_card, expert_dialogs
from dashboard.app_pages.changing import ask_button, files_seen, open_dialog, start_watching, tell
from dashboard.app_pages.expert_card import ACTIVATIONS, MEAN_WEIGHT
from dashboard.app_pages.parts import (
    USE_CHIPS,
    cards,
    chips_column,
    choice_table,
    counted,
    link_choice,
    nothing_yet,
    plain,
    search_box,
    sentence,
)
from dashboard.app_pages.routing import routing_view
from dashboard.charts import experts as charts
from dashboard.charts.style import CONFIG
from dashboard.queries.attachments import by_expert
from dashboard.queries.experts import STATES, ExpertTable
from dashboard.resources import workspace
from hrm_engine.errors import HRMError
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import printable

VIEWS = ("Registry", "Routing")
MAX_TREE = 300
_TREE_PIXELS = 420
_COUNTED = {
    "active": "Tokens may be routed to them",
    "frozen": "Neither gradient nor weight decay",
    "attached": "They stand in a layer of some brain",
}
_make = st.column_config
_COLUMNS: dict[str, Any] = {
    "expert_id": _make.TextColumn("Expert", width=180),
    "state": chips_column(USE_CHIPS, width=130),
    "category": _make.TextColumn("Category", width=85),
    "num_goals": _make.NumberColumn("Goals", format="%d", width=55),
    "total_activations": _make.NumberColumn("Activations", format="compact", help=ACTIVATIONS, width=90),
    "avg_routing_weight": _make.NumberColumn("Weight", format="%.3f", help=MEAN_WEIGHT, width=70),
    "last_trained": _make.DatetimeColumn("Trained", format="distance", width=100),
    "name": _make.TextColumn("Name", width="medium"),
}


@dataclass(frozen=True)
class Registry:
    """What the page shows: the cards, the same as tables, and the bundles that experts stand in."""

    content: RegistryContent
    table: ExpertTable
    goals: Goals
    attached: dict[str, list[str]]


def page() -> None:
    """The registry, or the routing of a run."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title("Experts", anchor=False, width="content")
        look: dict[str, Any] = {"key": "view", "bind": "query-params", "label_visibility": "collapsed"}
        view = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, **look)
    if view == "Routing":
        routing_view()
        return
    tell()
    seen = files_seen()
    try:
        goals = Goals(workspace())
        content = goals.registry.read()
        bundles = by_expert(workspace().run_dirs(), workspace())
        show(Registry(content, ExpertTable(content.cards), goals, bundles))
    except HRMError as problem:
        sentence(f"The experts cannot be shown, and nothing can be changed: {problem}", key="sentence_unreadable")
    else:
        open_dialog(expert_dialogs.DIALOGS)
    start_watching(seen)


def show(experts: Registry) -> None:
    """Counts, tree, table, and the card of the chosen expert."""
    if not experts.content.cards:
        nothing_yet(
            "There is no expert in this workspace yet.",
            "`lab train actv1 --expert-id NAME --dataset-file FILE` trains one and puts its card into the registry, "
            "`artifacts/experts/registry.json`. A card can also be made before the training.",
        )
        ask_button("New card", "create")
        return
    counts, card = experts.table.counts(experts.attached), cards()
    card("Experts", formats.count(len(experts.content.cards)))
    for state, words in _COUNTED.items():
        card(state.capitalize(), formats.count(counts[state]), help=words)
    left, right = st.columns([2, 1], gap="medium")
    with right:
        hierarchy(experts)
    with left:
        table(experts)
    chosen = st.query_params.get("expert", "")
    if chosen and chosen not in experts.content:
        sentence(f"There is no expert {printable(chosen[:100])!a} (any more): tick one in the table")
    elif chosen:
        expert_card.card(experts.content.get(chosen), experts.goals, experts.attached.get(chosen, []))


def hierarchy(experts: Registry) -> None:
    """The tree of parents and children; a click chooses an expert."""
    st.subheader("Hierarchy", anchor=False)
    tree = experts.table.tree()
    if tree.empty:
        nothing_yet("No hierarchy yet.", "*Set parent* on the card of an expert begins one.")
        return
    if len(tree) > MAX_TREE:
        plain(f"The first {MAX_TREE} of {len(tree):,}.")
        tree = tree.head(MAX_TREE)
    chosen = st.query_params.get("expert", "")
    with st.container(height=_TREE_PIXELS if len(tree) > 12 else "content", border=False):
        st.plotly_chart(
            charts.family_tree(tree, chosen),
            key=f"tree {chosen}",
            config={**CONFIG, "displayModeBar": False},
            on_select=choose_in_tree,
            selection_mode="points",
            alt="Parents with their children below them",
        )


def choose_in_tree() -> None:
    """Show the expert whose point was clicked."""
    key = f"tree {st.query_params.get('expert', '')}"
    for point in st.session_state[key]["selection"]["points"]:
        if isinstance(expert_id := point.get("customdata"), list):
            expert_id = expert_id[0] if expert_id else None
        if isinstance(expert_id, str):
            st.query_params["expert"] = expert_id
            # Another number makes another table, which ticks the expert.
            st.session_state["experts_choice"] = st.session_state.get("experts_choice", 0) + 1


def table(experts: Registry) -> None:
    """The experts that match the filter; a ticked one is shown below."""
    # Not right above the table, whose tools appear there.
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Registry", anchor=False, width="content")
        ask_button("New card", "create")
    search, category, states = filters(experts.table)
    frame = experts.table.find(search, category, states, experts.attached)
    total = len(experts.content.cards)
    plain(f"{counted('expert', total, len(frame))} · tick one to see its card")
    if frame.empty:
        nothing_yet("No expert matches.", "Shorten the search, or take something out of the filter.")
        return
    choice_table(
        frame,
        [str(expert_id) for expert_id in frame["expert_id"]],
        f"experts {st.session_state.get('experts_choice', 0)}",
        _COLUMNS,
        "Experts that match the filter",
        most_rows=10,
        param="expert",
        column_order=list(_COLUMNS),
    )


def filters(table: ExpertTable) -> tuple[str, str, list[str]]:
    """What to look for; all of it stands in the link."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = search_box("Id, name, description", 220)
        categories = table.categories()
        category: str | None = ""
        if categories:
            linked = st.query_params.get("category", "")
            st.session_state["category_choice"] = linked if linked in categories else None
            category = st.selectbox(
                "Category",
                categories,
                index=None,
                key="category_choice",
                on_change=link_choice,
                args=("category", "category_choice"),
                placeholder="Any category",
                label_visibility="collapsed",
                width=180,
            )
        states = st.pills(
            "State", STATES, selection_mode="multi", key="state", bind="query-params", label_visibility="collapsed"
        )
    return search, category or "", list(states)


if __name__ == "__main__":
    page()
