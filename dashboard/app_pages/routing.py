"""What the routers of a run do: who gets how many tokens, how even that is, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import chart, nothing_yet, plain, sentence
from dashboard.charts import experts as charts
from dashboard.charts import training as training_charts
from dashboard.queries.filecache import signature
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.overview import has_experts
from dashboard.queries.routing import MAX_STEPS, Routing
from dashboard.queries.scan import finite
from dashboard.resources import attachments, parameters, run_index, run_metrics, workspace
from hrm_engine.store.paths import ARGS_FILE, METRICS_FILE
from hrm_engine.store.runs import pick_run, printable, run_id
from hrm_engine.store.status import live_state

REFRESH_S = 5.0
MAX_NAMED = 12
EVENNESS = "Entropy of its shares of tokens, as a share of the maximum, now: 100 % where all experts get the same"


def routing_view() -> None:
    """Choose a run with experts, then show what its routers do."""
    run_dir = chosen_run()
    if run_dir is not None:
        every = REFRESH_S if live_state(run_dir) == "running" else None
        st.fragment(figures, run_every=every)(run_dir)


def chosen_run() -> Path | None:
    """The run of the link, else the latest one; says what to do where there is none and gives None."""
    here = workspace()
    found = {
        run_id(path, here): path
        for path in run_index(here.root).run_dirs()
        if has_experts(parameters().get(path / ARGS_FILE))
    }
    if not found:
        nothing_yet(
            "There is no run of a model with experts in this workspace yet.",
            "`lab train actv1` makes one: experts are on unless `--no-moe` is given.",
        )
        return None
    wanted = st.query_params.get("run", "")
    named = pick_run(wanted, list(found.values()), here) if wanted else None
    if wanted and named is None:
        sentence(f"The run {wanted[:200]} is no run with experts of this workspace (any more): choose one below")
    ids = sorted(found, key=lambda name: -changed_ns(found[name]))
    chosen = run_id(named, here) if named is not None else None if wanted else ids[0]
    st.session_state["routing_run"] = chosen
    st.selectbox("Run", ids, key="routing_run", on_change=choose_run, placeholder="Choose a run", width=420)
    return None if chosen is None else found[chosen]


def changed_ns(run_dir: Path) -> int:
    """When its metrics changed last."""
    found = signature(run_dir / METRICS_FILE)
    return 0 if found is None else found[1]


def choose_run() -> None:
    """Put the run chosen in the box into the link; layer and step belong to the one before."""
    st.query_params["run"] = st.session_state["routing_run"] or ""
    for name in ("layer", "step"):
        st.query_params.pop(name, None)


def figures(run_dir: Path) -> None:
    """All figures of one run."""
    if not run_dir.is_dir():
        st.rerun()
    metrics = run_metrics(run_dir)
    metrics.refresh()
    for note in metrics.notes():
        st.warning(note)
    found = metrics.routing()
    if not found.steps:
        nothing_yet(
            "This run has not told yet what its routers do.",
            "It does every 100 steps, and at the end.",
        )
        balance(metrics)
        return
    headline(found)
    names = attachments(workspace().root).names(run_dir)
    usage(found, names)
    left, right = st.columns(2)
    with left:
        shares(found, names)
    with right:
        st.subheader("Evenness", anchor=False)
        figure = charts.entropies(found.by_layer, found.layers)
        chart(figure, "entropies", "Entropy of the shares of tokens, as a share of its maximum, for each layer")
        plain("1: every expert gets the same. Below 0.9 some get far too little.")
    left, right = st.columns(2)
    with left:
        st.subheader("Dropped", anchor=False)
        figure = charts.by_layer_lines(found.by_layer, found.layers, "dropped", "share of assignments")
        chart(figure.update_yaxes(rangemode="tozero"), "dropped", "Share of assignments that found their expert full")
        plain("Assignments that found their expert full; such a token keeps its residual path.")
    with right:
        balance(metrics)
    bias(found)
    if found.num_steps > len(found.steps):
        plain(f"{len(found.steps):,} of {found.num_steps:,} steps are drawn, evenly spread; at most {MAX_STEPS}.")


def bias(found: Routing) -> None:
    """What goals drew to their experts."""
    rates = found.by_layer["bias_rate"]
    if rates.notna().any():
        st.subheader("Bias of goals", anchor=False)
        if not (rates > 0).any():
            plain("No goal steers this run.")
            return
        with st.columns(2)[0]:
            figure = charts.by_layer_lines(found.by_layer, found.layers, "bias_rate", "bias rate")
            figure.update_yaxes(rangemode="tozero", tickformat=".0%")
            chart(figure, "bias_rate", "Bias rate of goal-aware routing, for each layer")
            plain("Share of the layer's assignments that went to experts which a goal favours.")


def headline(found: Routing) -> None:
    """How it is at the last step that was told."""
    last = found.by_layer[found.by_layer["step"] == found.steps[-1]]
    known = last[last["entropy"].notna()]
    row = st.grid("auto", min_column_width=150)
    row.metric("Layers with experts", formats.count(len(found.layers)), border=True)
    row.metric("Experts of a layer", experts_range(last["num_experts"].tolist()), border=True)
    if len(known):
        least = known.loc[known["entropy"].idxmin()]
        # The name of a layer comes from a file and a metric's delta is markup: it is said below the figure instead.
        row.metric("Least even layer", formats.share(finite(least["entropy"])), border=True, help=EVENNESS)
    row.metric("Dropped", formats.share(finite(last["dropped"].mean())), border=True, help="Mean of the layers, now")
    row.metric("Step", formats.count(found.steps[-1]), border=True, help="The last one that was told")


def experts_range(numbers: list[int]) -> str:
    """``8``, or ``4 to 8``."""
    low, high = min(numbers), max(numbers)
    return formats.count(low) if low == high else f"{formats.count(low)} to {formats.count(high)}"


def usage(found: Routing, names: Mapping[tuple[str, int], str]) -> None:
    """Layers by experts at one step, which a slider chooses; without a choice the latest."""
    st.subheader("Tokens by layer and expert", anchor=False)
    step = chosen_step(found.steps)
    highest = float(found.cells["share"].max()) if found.cells["share"].notna().any() else 1.0
    cells = found.at(step)
    routed = set(cells["layer"])
    layers = [layer for layer in found.layers if layer in routed]
    chart(charts.usage_map(cells, layers, highest, names), "usage", "Share of tokens of each expert in each layer")
    plain("Share of its layer's assignments; the colours mean the same at every step.")
    if names:
        listed = [f"{expert_id} is expert {column} of {layer}" for (layer, column), expert_id in names.items()]
        plain(printable(f"Attached: {'; '.join(listed[:MAX_NAMED])}{'; ...' if len(listed) > MAX_NAMED else ''}."))


def chosen_step(steps: tuple[int, ...]) -> int:
    """The step of the link, if there is such a one, else the last."""
    wanted = st.query_params.get("step", "")
    chosen = next((step for step in steps if str(step) == wanted), steps[-1])
    if len(steps) > 1:
        st.session_state["usage_step"] = chosen
        st.select_slider(
            "Step",
            steps,
            key="usage_step",
            on_change=choose_step,
            args=(steps[-1],),
            format_func=lambda step: f"{step:,}",
        )
    return chosen


def choose_step(last: int) -> None:
    """Put the step into the link; at the last one the link names none, so that it goes on with the run."""
    if (chosen := st.session_state["usage_step"]) == last:
        st.query_params.pop("step", None)
    else:
        st.query_params["step"] = str(chosen)


def shares(found: Routing, names: Mapping[tuple[str, int], str]) -> None:
    """One layer's shares over the training."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Shares of tokens", anchor=False, width="content")
        wanted = st.query_params.get("layer", "")
        layer = wanted if wanted in found.layers else found.layers[0]
        st.session_state["usage_layer"] = layer
        st.selectbox(
            "Layer",
            found.layers,
            key="usage_layer",
            on_change=choose_layer,
            label_visibility="collapsed",
            width=130,
        )
    chart(charts.token_shares(found.of(layer), names), "token_shares", "Share of the layer's tokens by expert, by step")


def choose_layer() -> None:
    """Put the layer chosen in the box into the link."""
    st.query_params["layer"] = st.session_state["usage_layer"]


def balance(metrics: RunMetrics) -> None:
    """The losses of the routers."""
    frame = metrics.train(("lb_loss", "z_loss"))
    if frame.empty:
        return
    st.subheader("Losses of the routers", anchor=False)
    names = {"lb_loss": "load balance (1: even)", "z_loss": "router z"}
    chart(training_charts.lines(frame, names, "loss", height=300), "balance", "Load-balance loss and router z-loss")
