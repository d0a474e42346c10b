"""What the routers of a run do: who gets how many tokens, how even that is, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import cards, chart, chosen_run, link_choice, nothing_yet, plain, set_link
from dashboard.charts import experts as charts
from dashboard.charts import training as training_charts
from dashboard.queries.attachments import attached
from dashboard.queries.fields import finite
from dashboard.queries.folder import parameters
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.overview import has_experts
from dashboard.queries.routing import MAX_STEPS, Routing, has_routing
from dashboard.resources import fresh_metrics, workspace
from hrm_engine.store.runs import printable
from hrm_engine.store.status import live_state

REFRESH_S = 5.0
MAX_NAMED = 12
EVENNESS = "Entropy of its shares of tokens, as a share of the maximum, now: 100 % where all experts get the same"


def routing_view() -> None:
    """Choose a run with experts, then show what its routers do."""
    run_dir = chosen_run(
        [path for path in workspace().run_dirs() if has_experts(parameters(path))],
        "no run with experts",
        (
            "There is no run of a model with experts in this workspace yet.",
            "`lab train actv1` makes one: experts are on unless `--no-moe` is given.",
        ),
        key="routing_run",
        dropped=("layer", "step"),
        last=lambda run: not has_routing(run),
    )
    if run_dir is not None:
        every = REFRESH_S if live_state(run_dir) == "running" else None
        st.fragment(figures, run_every=every)(run_dir)


def figures(run_dir: Path) -> None:
    """All figures of one run."""
    if not run_dir.is_dir():
        st.rerun()
    metrics = fresh_metrics(run_dir)
    for note in metrics.notes():
        st.warning(note)
    routing = metrics.routing()
    if not routing.steps:
        nothing_yet(
            "No routing data.",
            "It is written at steps 1, 3, 10 and 30, every 100 steps and when a run finishes.",
        )
        balance(metrics)
        return
    headline(routing)
    names = {(entry.layer, entry.column): entry.expert_id for entry in attached(run_dir)}
    usage(routing, names)
    left, right = st.columns(2)
    with left:
        shares(routing, names)
    with right:
        figure = charts.entropies(routing.by_layer, routing.layers)
        words = "Entropy of the shares of tokens, as a share of its maximum, for each layer"
        chart(figure, "entropies", words, "Evenness")
        plain("1: every expert gets the same. Below 0.9 some get far too little.")
    left, right = st.columns(2)
    with left:
        figure = charts.by_layer_lines(routing.by_layer, routing.layers, "dropped", "share of assignments")
        figure.update_yaxes(rangemode="tozero")
        chart(figure, "dropped", "Share of assignments that found their expert full", "Dropped")
        plain("Assignments that found their expert full; such a token keeps its residual path.")
    with right:
        balance(metrics)
    bias(routing)
    if routing.num_steps > len(routing.steps):
        plain(f"{len(routing.steps):,} of {routing.num_steps:,} steps are drawn, evenly spread; at most {MAX_STEPS}.")


def bias(routing: Routing) -> None:
    """What goals drew to their experts."""
    rates = routing.by_layer["bias_rate"]
    if rates.notna().any():
        st.subheader("Bias of goals", anchor=False)
        if not (rates > 0).any():
            plain("No goal steers this run.")
            return
        with st.columns(2)[0]:
            figure = charts.by_layer_lines(routing.by_layer, routing.layers, "bias_rate", "bias rate")
            figure.update_yaxes(rangemode="tozero", tickformat=".0%")
            chart(figure, "bias_rate", "Bias rate of goal-aware routing, for each layer")
            plain("Share of the layer's assignments that went to experts which a goal favours.")


def headline(routing: Routing) -> None:
    """How it is at the last step that was told."""
    last = routing.by_layer[routing.by_layer["step"] == routing.steps[-1]]
    known = last[last["entropy"].notna()]
    card = cards()
    card("Layers with experts", formats.count(len(routing.layers)))
    low, high = formats.count(last["num_experts"].min()), formats.count(last["num_experts"].max())
    card("Experts of a layer", low if low == high else f"{low} to {high}")
    if len(known):
        least = known.loc[known["entropy"].idxmin()]
        # The name of a layer comes from a file and a metric's delta is markup: it is said below the figure instead.
        card("Least even layer", formats.share(finite(least["entropy"])), help=EVENNESS)
    card("Dropped", formats.share(finite(last["dropped"].mean())), help="Mean of the layers, now")
    card("Step", formats.count(routing.steps[-1]), help="The last one that was told")


def usage(routing: Routing, names: Mapping[tuple[str, int], str]) -> None:
    """Layers by experts at one step, which a slider chooses; without a choice the latest."""
    st.subheader("Tokens by layer and expert", anchor=False)
    step = chosen_step(routing.steps)
    highest = float(routing.cells["share"].max()) if routing.cells["share"].notna().any() else 1.0
    cells = routing.at(step)
    routed = set(cells["layer"])
    layers = [layer for layer in routing.layers if layer in routed]
    chart(charts.usage_map(cells, layers, highest, names), "usage", "Share of tokens of each expert in each layer")
    plain("Share of its layer's assignments; the colours mean the same at every step.")
    if names:
        listed = [f"{expert_id} is expert {column} of {layer}" for (layer, column), expert_id in names.items()]
        plain(printable(f"Attached: {'; '.join(listed[:MAX_NAMED])}{'; ...' if len(listed) > MAX_NAMED else ''}."))


def chosen_step(steps: tuple[int, ...]) -> int:
    """The step of the link, if there is such a one, else the last."""
    linked = st.query_params.get("step", "")
    chosen = next((step for step in steps if str(step) == linked), steps[-1])
    if len(steps) > 1:
        st.session_state["usage_step"] = chosen

        def choose() -> None:
            step = st.session_state["usage_step"]
            # At the last one the link names none, so that the page goes on with the run.
            set_link("step", None if step == steps[-1] else step)

        st.select_slider("Step", steps, key="usage_step", format_func=lambda step: f"{step:,}", on_change=choose)
    return chosen


def shares(routing: Routing, names: Mapping[tuple[str, int], str]) -> None:
    """One layer's shares over the training."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Shares of tokens", anchor=False, width="content")
        linked = st.query_params.get("layer", "")
        layer = linked if linked in routing.layers else routing.layers[0]
        st.session_state["usage_layer"] = layer
        look: dict[str, Any] = {"label_visibility": "collapsed", "width": 130}
        st.selectbox(
            "Layer", routing.layers, key="usage_layer", on_change=link_choice, args=("layer", "usage_layer"), **look
        )
    chart(
        charts.token_shares(routing.of(layer), names), "token_shares", "Share of the layer's tokens by expert, by step"
    )


def balance(metrics: RunMetrics) -> None:
    """The losses of the routers."""
    frame = metrics.train(("lb_loss", "z_loss"))
    if frame.empty:
        return
    names = {"lb_loss": "load balance (1: even)", "z_loss": "router z"}
    figure = training_charts.lines(frame, names, "loss", height=300)
    chart(figure, "balance", "Load-balance loss and router z-loss", "Losses of the routers")
