"""The dialogs of experts and their goals: what each change means, and the two buttons below it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.app_pages.changing import Dialogs, answer
from dashboard.app_pages.parts import plain, sentence
from dashboard.queries.goals import ServedGoal, served_goals
from dashboard.resources import workspace
from hrm_engine.errors import HRMError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import printable

_SHOWN = 90


def create(_: str) -> None:
    """A card without weights; a training of the same id gives it some."""
    goals = Goals(workspace())
    plain("A card without weights: a training with the same id gives it some.")
    expert_id = st.text_input("Id", key="new_id", max_chars=64, placeholder="lower-case letters, digits, . _ -")
    name = st.text_input("Name", key="new_name", max_chars=200)
    category = st.text_input("Category", key="new_category", max_chars=100)
    description = st.text_area("Description", key="new_description", max_chars=2000, height=90)
    content = _content(goals)
    if content is None:
        return
    ids = [card.expert_id for card in content.cards]
    parent = st.selectbox("Parent", ids, index=None, key="new_parent", placeholder="none")

    def add() -> None:
        card = ExpertCard(
            expert_id=expert_id.strip(),
            name=name.strip(),
            category=category.strip(),
            description=description.strip(),
            parent_expert_id=parent,
        )
        goals.registry.add(card)
        st.query_params["expert"] = card.expert_id

    answer("Create", add, f"`{expert_id.strip()}` has a card")


def activate(expert_id: str) -> None:
    """Route tokens to it again."""
    st.text(f"Tokens will be routed to {expert_id} again in every brain that it is attached to.")
    answer("Activate", partial(Goals(workspace()).registry.activate, expert_id), f"`{expert_id}` is active")


def deactivate(expert_id: str) -> None:
    """Mask it from routing."""
    st.text(
        f"No token will be routed to {expert_id} any more, in training and in generation. Its card and its weights "
        "stay, and it can be activated again."
    )
    answer("Deactivate", partial(Goals(workspace()).registry.deactivate, expert_id), f"`{expert_id}` is inactive")


def set_parent(expert_id: str) -> None:
    """Hang it under another expert, or under none."""
    goals = Goals(workspace())
    content = _content(goals)
    if content is None or expert_id not in content:
        _gone(expert_id, content)
        return
    below = {expert_id}
    for card in content.cards:  # parents need not come before their children
        line = [card.expert_id]
        while (parent := content.get(line[-1]).parent_expert_id) is not None and parent not in line:
            line.append(parent)
        if expert_id in line:
            below.add(card.expert_id)
    others = [card.expert_id for card in content.cards if card.expert_id not in below]
    now = content.get(expert_id).parent_expert_id
    choices = ["", *others]
    parent = st.selectbox(
        "Parent",
        choices,
        index=choices.index(now) if now in choices else 0,
        format_func=lambda choice: choice or "none",
        key=f"parent_of {expert_id}",
    )
    plain("What hangs below it cannot be its parent.")
    done = f"`{expert_id}` hangs under `{parent}`" if parent else f"`{expert_id}` hangs under no expert"
    answer("Set parent", partial(goals.registry.set_parent, expert_id, parent or None), done)


def delete(expert_id: str) -> None:
    """Delete card, links and folder."""
    goals = Goals(workspace())
    content = _content(goals)
    if content is None or expert_id not in content:
        _gone(expert_id, content)
        return
    st.text(
        f"The card of {expert_id}, its links to goals, and everything in artifacts/experts/{expert_id} will be "
        "deleted. This cannot be undone."
    )
    reparent = False
    children = content.get(expert_id).child_expert_ids
    if children:
        st.text(f"Below it hang {', '.join(children[:10])}{', ...' if len(children) > 10 else ''}.")
        reparent = st.checkbox("Hang them under its own parent", key="reparent")

    def remove() -> None:
        goals.registry.delete(expert_id, reparent=reparent)
        st.query_params.pop("expert", None)

    answer("Delete", remove, f"`{expert_id}` is deleted")


def link(expert_id: str) -> None:
    """Let it serve a goal that there is, or a new one."""
    goals = Goals(workspace())
    try:
        found = [served for served in served_goals(goals) if expert_id not in served.experts]
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return
    texts = {served.goal.id: _named(served) for served in found}
    chosen = st.selectbox(
        "Goal",
        list(texts),
        index=None,
        format_func=lambda goal_id: texts.get(goal_id, str(goal_id)),
        key=f"goal_for {expert_id}",
        placeholder="Choose a goal" if texts else "There is none that it does not serve",
        disabled=not texts,
    )
    text = st.text_area("Or a new one", key="new_goal_for", max_chars=2000, height=90).strip()
    plain("While a goal is active, its experts get more of the tokens where a training or generation is told so.")

    def change() -> None:
        if text:
            goals.add(text, expert_id=expert_id)
        elif chosen is not None:
            goals.link_expert(chosen, expert_id)

    answer("Link", change, f"`{expert_id}` serves the goal", disabled=not text and chosen is None)


def unlink(subject: str) -> None:
    """End that it serves a goal; ``subject`` is the goal's number and the expert's id."""
    number, _, expert_id = subject.partition(" ")
    goals = Goals(workspace())
    st.text(f"Goal {number} will no longer draw tokens to {expert_id}. Both stay.")
    answer(
        "Unlink",
        partial(goals.unlink_expert, int(number), expert_id),
        f"`{expert_id}` no longer serves goal {number}",
    )


DIALOGS: Dialogs = {
    "create": ("New expert card", create),
    "activate": ("Activate expert", activate),
    "deactivate": ("Deactivate expert", deactivate),
    "parent": ("Set parent", set_parent),
    "delete": ("Delete expert", delete),
    "link": ("Link goal", link),
    "unlink": ("Unlink goal", unlink),
}


def _content(goals: Goals) -> RegistryContent | None:
    """The registry, or None once it has been said why it cannot be read."""
    try:
        return goals.registry.read()
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return None


def _gone(expert_id: str, content: RegistryContent | None) -> None:
    if content is not None:
        sentence(f"There is no expert {expert_id} any more", key="sentence_dialog")


def _named(served: ServedGoal) -> str:
    text = " ".join(printable(served.goal.text).split())
    return f"{served.goal.id} · {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"
