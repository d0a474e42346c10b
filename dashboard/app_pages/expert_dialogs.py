"""The dialogs of experts, their goals and their brains: what each change means, and the two buttons below it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.app_pages.changing import Dialogs, answer, confirmation
from dashboard.app_pages.parts import plain, sentence
from dashboard.queries.attachments import layers_of, takers
from dashboard.queries.experts import ServedGoal, served_goals
from dashboard.resources import workspace
from hrm_engine.errors import RegistryError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import pick_run, printable

_SHOWN = 90


def create() -> None:
    """A card without weights; a training of the same id gives it some."""
    registry = Goals(workspace()).registry
    plain("A card without weights: a training with the same id gives it some.")
    expert_id = st.text_input("Id", key="new_id", max_chars=64, placeholder="lower-case letters, digits, . _ -")
    name = st.text_input("Name", key="new_name", max_chars=200)
    category = st.text_input("Category", key="new_category", max_chars=100)
    description = st.text_area("Description", key="new_description", max_chars=2000, height=90)
    ids = [card.expert_id for card in registry.read().cards]
    parent = st.selectbox("Parent", ids, index=None, key="new_parent", placeholder="none")

    def add() -> None:
        card = ExpertCard(
            expert_id=expert_id.strip(),
            name=name.strip(),
            category=category.strip(),
            description=description.strip(),
            parent_expert_id=parent,
        )
        registry.add(card)
        st.query_params["expert"] = card.expert_id

    answer("Create", add, f"`{expert_id.strip()}` has a card")


def set_parent(expert_id: str) -> None:
    """Hang it under another expert, or under none."""
    registry = Goals(workspace()).registry
    content = registry.read()
    parent = content.get(expert_id).parent_expert_id
    below, pending = set[str](), [expert_id]
    while pending:
        below.add(pending[-1])
        pending += content.get(pending.pop()).child_expert_ids
    choices = ["", *(card.expert_id for card in content.cards if card.expert_id not in below)]
    chosen = st.selectbox(
        "Parent",
        choices,
        index=choices.index(parent or ""),
        format_func=lambda choice: choice or "none",
        key=f"parent_of {expert_id}",
    )
    plain("Its own descendants cannot be its parent.")
    done = f"The parent of `{expert_id}` is `{chosen}`" if chosen else f"`{expert_id}` has no parent"
    answer("Set parent", partial(registry.set_parent, expert_id, chosen or None), done)


def delete(expert_id: str) -> None:
    """Delete card, links and folder."""
    goals = Goals(workspace())
    children = goals.registry.read().get(expert_id).child_expert_ids
    st.text(
        f"The card of {expert_id}, its links to goals, and everything in artifacts/experts/{expert_id} will be "
        "deleted. This cannot be undone."
    )
    reparent = False
    if children:
        st.text(f"Its children: {', '.join(children[:10])}{', ...' if len(children) > 10 else ''}.")
        reparent = st.checkbox("Hang them under its own parent", key="reparent")

    def remove() -> None:
        goals.registry.delete(expert_id, reparent=reparent)
        st.query_params.pop("expert", None)

    answer("Delete", remove, f"`{expert_id}` is deleted")


def link(expert_id: str) -> None:
    """Let it serve a goal that there is, or a new one."""
    goals = Goals(workspace())
    texts = {served.goal.id: _line(served) for served in served_goals(goals) if expert_id not in served.experts}
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


def _line(served: ServedGoal) -> str:
    text = " ".join(printable(served.goal.text).split())
    return f"{served.goal.id} · {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"


def attach(expert_id: str) -> None:
    """Choose a brain that it fits into, and a layer of it; a new brain is written beside that one."""
    card = ExpertRegistry(workspace()).get(expert_id)
    brains = takers(card, workspace().run_dirs(), workspace())
    if not brains:
        sizes = [f"{name} size {card.training_config.get(f'{name}_size')}" for name in ("hidden", "intermediate")]
        which = f"with the sizes of {expert_id} ({', '.join(sizes)})"
        sentence(f"There is no finished brain {which} that it is not attached to yet", key="sentence_dialog")
    brain = st.selectbox(
        "Brain", list(brains), index=None, key=f"brain_for {expert_id}", placeholder="Choose one", disabled=not brains
    )
    taker = brains[brain] if brain else None
    layers = () if taker is None else taker.layers
    first = layers.index(taker.default_layer) if taker is not None and taker.default_layer in layers else 0
    layer = st.selectbox(
        "Layer", layers, index=first, key=f"layer_for {expert_id} {brain}", placeholder="none", disabled=taker is None
    )
    name = _name("" if taker is None else f"{taker.path.name}-{expert_id}")
    allow_other_base = st.checkbox("Also where it was trained on another brain", key=f"other_base_for {expert_id}")
    plain("A new brain is written, in which tokens of this layer can be routed to it. The chosen one stays as it is.")

    def change() -> str:
        from hrm_engine.bundles.experts import attach_expert

        assert taker is not None
        with st.spinner("Writing the new brain"):
            new = attach_expert(
                expert_id,
                taker.path,
                layer=layer,
                name=name,
                allow_other_base=allow_other_base,
                workspace=workspace(),
            )
        return f"`{expert_id}` is attached in `{new.name}`"

    answer("Attach", change, disabled=taker is None)


def detach(expert_id: str, brain: str) -> None:
    """Take it out of a brain; a new brain is written beside that one."""
    run_dir = pick_run(brain, workspace().run_dirs(), workspace())
    layers = [] if run_dir is None else layers_of(run_dir, expert_id)
    if run_dir is None or not layers:
        raise RegistryError(f"{expert_id} is not attached to {brain} any more")
    layer = layers[0]
    if len(layers) > 1:
        layer = st.selectbox("Layer", layers, key=f"layer_of {expert_id} {brain}")
    st.text(f"A new brain is written, as {brain} is but without {expert_id} in layer {layer}. {brain} stays as it is.")
    name = _name(f"{run_dir.name}-without-{expert_id}")

    def change() -> str:
        from hrm_engine.bundles.experts import detach_expert

        with st.spinner("Writing the new brain"):
            new = detach_expert(expert_id, run_dir, layer=layer, name=name, workspace=workspace())
        return f"`{new.name}` is without `{expert_id}`"

    answer("Detach", change)


def _name(default: str) -> str | None:
    typed = st.text_input("Name of the new brain", key="child_name", max_chars=64, placeholder=default)
    return typed.strip() or None


unlink = confirmation(
    "Unlink",
    "Goal {0} will no longer draw tokens to {1}. Both stay.",
    lambda goal_id, expert_id: Goals(workspace()).unlink_expert(int(goal_id), expert_id),
    "`{1}` no longer serves goal {0}",
)
_activate = confirmation(
    "Activate",
    "Tokens will be routed to {0} again in every brain that it is attached to.",
    lambda expert_id: Goals(workspace()).registry.update(expert_id, is_active=True),
    "`{0}` is active",
)
_deactivate = confirmation(
    "Deactivate",
    "No token will be routed to {0} any more, in training and in generation. Its card and its weights stay, and it can "
    "be activated again.",
    lambda expert_id: Goals(workspace()).registry.update(expert_id, is_active=False),
    "`{0}` is inactive",
)
DIALOGS: Dialogs = {
    "create": ("New expert card", create),
    "activate": ("Activate expert", _activate),
    "deactivate": ("Deactivate expert", _deactivate),
    "parent": ("Set parent", set_parent),
    "delete": ("Delete expert", delete),
    "link": ("Link goal", link),
    "unlink": ("Unlink goal", unlink),
    "attach": ("Attach expert", attach),
    "detach": ("Detach expert", detach),
}
