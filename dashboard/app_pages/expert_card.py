"""The card of one expert: what it is and serves, where it stands, what its training found, and what can be done."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard import formats
from dashboard.app_pages.changing import OPEN_ICON, ask, ask_button, change_now, toggle_button, undo
from dashboard.app_pages.parts import card_title, cards, chart, plain, table
from dashboard.charts import evaluation as evaluation_charts
from dashboard.charts import training as training_charts
from dashboard.queries.experts import card_fields, losses
from dashboard.resources import fresh_metrics, workspace
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import ARGS_FILE, METRICS_FILE
from hrm_engine.store.runs import printable, run_id

MAX_LISTED = 20
ACTIVATIONS = "Tokens that routers sent to it in the evaluations of its trainings, once for each call of its layer"
MEAN_WEIGHT = "Mean weight that they gave it there"


def card(expert: ExpertCard, goals: Goals, bundles: list[str]) -> None:
    """Everything about one expert; ``bundles`` are the ids of the runs that it stands in."""
    st.divider()
    states = [
        "active" if expert.is_active else "inactive",
        *["frozen"] * expert.is_frozen,
        *["attached"] * bool(bundles),
    ]
    card_title(expert.expert_id, states)
    if expert.name:
        plain(printable(expert.name))
    actions(expert, goals)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        numbers(expert)
        if expert.description:
            with st.container(key="words_description"):
                st.text(printable(expert.description))
        training(expert, goals.registry)
        fields(expert)
    with right:
        served(expert, goals)
        places(expert.expert_id, bundles)


def actions(expert: ExpertCard, goals: Goals) -> None:
    """What can be done with it. What destroys something or changes the routing is asked first."""
    registry, name = goals.registry, expert.expert_id
    with st.container(horizontal=True):
        if expert.is_frozen:
            thaw = partial(registry.update, name, is_frozen=False)
            toggle_button("Unfreeze", partial(change_now, thaw, f"`{name}` can be trained again"), f"freeze {name}")
        else:
            keep = partial(registry.update, name, is_frozen=True)
            toggle_button("Freeze", partial(change_now, keep, f"`{name}` is frozen"), f"freeze {name}")
        kind = "deactivate" if expert.is_active else "activate"
        toggle_button(kind.capitalize(), partial(ask, kind, name), f"activate {name}")
        ask_button("Set parent", "parent", name)
        ask_button("Link goal", "link", name)
        untrained = expert.checkpoint_path is None
        why = "It has no weights yet" if untrained else None
        ask_button("Attach", "attach", name, disabled=untrained, help=why)
        ask_button("Delete", "delete", name)


def numbers(expert: ExpertCard) -> None:
    """Use and training in numbers."""
    with_it, without = losses(expert)
    gain = None if with_it is None or without is None else with_it - without
    number = cards(130)
    number("Activations", formats.count(expert.total_activations), help=ACTIVATIONS)
    weight = expert.avg_routing_weight if expert.total_activations else None
    number("Mean weight", formats.rate(weight), help=MEAN_WEIGHT)
    number(
        "Held-out loss",
        formats.loss(with_it),
        delta=None if gain is None else f"{gain:+.3f}",
        delta_color="inverse",
        help="With the expert, in nats per token; below it the difference to the base without it",
    )
    number("Without it", formats.loss(without), help="Of the base alone, on the same text")


def training(expert: ExpertCard, registry: ExpertRegistry) -> None:
    """The curves of its training, if there was one. Raises ConfigError: its folder is a link."""
    folder = registry.folder(expert.expert_id)
    if not (folder / METRICS_FILE).is_file():
        if expert.checkpoint_path is None:
            plain(f"It has no weights yet: lab train actv1 --expert-id {expert.expert_id} --dataset-file FILE")
        return
    metrics = fresh_metrics(folder)
    evaluation, train = metrics.evaluation(("loss_without",)), metrics.train(("loss",))
    if len(evaluation):
        names, title = {"loss": "with the expert", "loss_without": "without"}, "held-out loss (nats/token)"
        figure = evaluation_charts.curves(evaluation, names, title, x="step", hover=",.4f")
        words = "Held-out loss with and without the expert"
        chart(figure, "with_and_without", words, "Loss with and without it")
    if len(train):
        figure = training_charts.lines(train, {"loss": "training"}, "loss (nats/token)", height=260)
        chart(figure, "expert_training", "Training loss of the expert", "Training loss")
    for note in metrics.notes():
        st.warning(note)
    if (folder / ARGS_FILE).is_file():
        link = {"run": run_id(folder, workspace())}
        st.page_link("app_pages/run.py", label="All of its last training", query_params=link)


def fields(expert: ExpertCard) -> None:
    """The whole card, as the registry has it."""
    with st.expander("All fields"):
        make = st.column_config.TextColumn
        columns = {"field": make("Field", width="medium"), "value": make("Value", width="large")}
        table(card_fields(expert), "card_fields", columns, "Every field of the card", height="content")


def served(expert: ExpertCard, goals: Goals) -> None:
    """The goals that it serves."""
    st.subheader("Goals", anchor=False)
    active = {goal.id: goal.active for goal in goals.list_goals(active_only=False)}
    if not expert.goals:
        plain("It serves no goal.")
    for at, goal in enumerate(expert.goals[:MAX_LISTED]):
        with st.container(border=True, key=f"words_goal_{at}"):
            st.text(printable(goal.text))
            with st.container(horizontal=True, vertical_alignment="center"):
                if goal.id is None:
                    plain("in no database yet")
                    continue
                plain(f"goal {goal.id} · {'active' if active.get(goal.id) else 'inactive'}")
                undo("Unlink", "unlink", str(goal.id), expert.expert_id)
    if len(expert.goals) > MAX_LISTED:
        plain(f"and {len(expert.goals) - MAX_LISTED:,} more")
    st.page_link("app_pages/goals.py", label="All goals")


def places(expert_id: str, bundles: list[str]) -> None:
    """The brains that it is attached to."""
    st.subheader("Attached to", anchor=False)
    if not bundles:
        plain("no brain")
    for at, bundle in enumerate(bundles[:MAX_LISTED]):
        with st.container(horizontal=True, vertical_alignment="center", key=f"words_bundle_{at}"):
            st.text(bundle)
            st.page_link("app_pages/run.py", label="Open", icon=OPEN_ICON, query_params={"run": bundle})
            undo("Detach", "detach", expert_id, bundle)
    if len(bundles) > MAX_LISTED:
        plain(f"and {len(bundles) - MAX_LISTED:,} more")
