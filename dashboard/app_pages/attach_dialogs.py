"""The dialogs that put an expert into a brain and take it out again: both write a new brain beside the old one."""

from __future__ import annotations

import streamlit as st

from dashboard.app_pages.changing import Dialogs, answer
from dashboard.app_pages.parts import plain, sentence
from dashboard.resources import attachments, run_index, workspace
from hrm_engine.errors import HRMError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.runs import pick_run


def attach(expert_id: str) -> None:
    """Choose a brain that it fits into, and a layer of it."""
    here = workspace()
    try:
        card = ExpertRegistry(here).get(expert_id)
    except HRMError as problem:
        sentence(str(problem), key="sentence_dialog")
        return
    takers = attachments(here.root).takers(card, run_index(here.root).run_dirs())
    if not takers:
        sentence(
            f"There is no finished brain with the sizes of {expert_id} ({_sizes(card)}) that it is not attached to yet",
            key="sentence_dialog",
        )
    brain = st.selectbox(
        "Brain", list(takers), index=None, key=f"brain_for {expert_id}", placeholder="Choose one", disabled=not takers
    )
    taker = takers.get(brain) if brain else None
    layers = () if taker is None else taker.layers
    first = layers.index(taker.default_layer) if taker is not None and taker.default_layer in layers else 0
    layer = st.selectbox(
        "Layer", layers, index=first, key=f"layer_for {expert_id} {brain}", placeholder="none", disabled=taker is None
    )
    name = _name("" if taker is None else f"{taker.path.name}-{expert_id}")
    plain("A new brain is written, in which tokens of this layer can be routed to it. The chosen one stays as it is.")

    def change() -> str:
        from hrm_engine.bundles.experts import attach_expert

        assert taker is not None
        with st.spinner("Writing the new brain"):
            made = attach_expert(expert_id, taker.path, layer=layer, name=name, workspace=here)
        return f"`{expert_id}` is attached in `{made.name}`"

    answer("Attach", change, disabled=taker is None)


def detach(subject: str) -> None:
    """Take it out of one brain; ``subject`` is the expert's id and the id of the run."""
    expert_id, _, brain = subject.partition(" ")
    here = workspace()
    run_dir = pick_run(brain, run_index(here.root).run_dirs(), here)
    layers = [] if run_dir is None else attachments(here.root).layers(run_dir, expert_id)
    if run_dir is None or not layers:
        sentence(f"{expert_id} is not attached to {brain} any more", key="sentence_dialog")
        return
    layer = layers[0]
    if len(layers) > 1:
        layer = st.selectbox("Layer", layers, key=f"layer_of {subject}")
    st.text(f"A new brain is written, as {brain} is but without {expert_id} in layer {layer}. {brain} stays as it is.")
    name = _name(f"{run_dir.name}-without-{expert_id}")

    def change() -> str:
        from hrm_engine.bundles.experts import detach_expert

        with st.spinner("Writing the new brain"):
            made = detach_expert(expert_id, run_dir, layer=layer, name=name, workspace=here)
        return f"`{made.name}` is without `{expert_id}`"

    answer("Detach", change)


DIALOGS: Dialogs = {
    "attach": ("Attach expert", attach),
    "detach": ("Detach expert", detach),
}


def _name(default: str) -> str | None:
    given = st.text_input("Name of the new brain", key="child_name", max_chars=64, placeholder=default)
    return given.strip() or None


def _sizes(card: ExpertCard) -> str:
    found = ((words, card.training_config.get(f"{words}_size")) for words in ("hidden", "intermediate"))
    return ", ".join(f"{words} size {size}" for words, size in found)
