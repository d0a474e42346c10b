"""What the page of a run shows of a training that has no panels of its own: whatever numbers its rows hold."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import chart, nothing_yet, plain
from dashboard.app_pages.sections import View, curves, progress
from dashboard.charts import evaluation as evaluation_charts
from dashboard.charts import training as training_charts
from dashboard.queries.metrics import density
from dashboard.queries.overview import Overview
from dashboard.resources import run_metrics

_NOT_MEASURED = frozenset({"eval_time_s"})

loss_curves = partial(curves, unit_name="as it is minimised")


def numbers(now: Overview) -> None:
    """The row of key figures."""
    row = st.grid("auto", min_column_width=140)
    card = partial(row.metric, border=True, height="stretch")
    card("Training loss", formats.loss(now.train_loss))
    card("Validation loss", formats.loss(now.eval_loss), help="Last evaluation")
    progress(now, card)


def evaluation(run_dir: Path, view: View) -> None:
    """Every number of the evaluations, over the training."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    names = [name for name in metrics.names("eval") if name not in _NOT_MEASURED]
    rows = metrics.evaluation([name for name in names if name != "loss"], x=view.x)
    if rows.empty:
        nothing_yet("No evaluation yet.", "One is made every `--eval-every` steps and at the end.")
        return
    places = st.columns(2)
    for number, name in enumerate(names):
        with places[number % 2]:
            title = name.replace("_", " ").capitalize()
            st.subheader(title, anchor=False)
            figure = evaluation_charts.curves(rows, {name: title}, title, x=view.x, hover=",.4f")
            chart(figure, f"eval_{name}", f"{title} in the evaluations")


def throughput(run_dir: Path, view: View) -> None:
    """How fast it goes."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    rates = [name for name in metrics.names("train") if name.endswith("_per_s")]
    frame = metrics.train((*rates, "step_time_s"), x=view.x)
    if frame.empty:
        nothing_yet("No training row has been written yet.", "Throughput appears here with the first one.")
        return
    titles = {name: name.removesuffix("_per_s").replace("_", " ") + "/s" for name in rates}
    places = st.columns(2)
    for number, (name, title) in enumerate({**titles, "step_time_s": "time of one optimizer step (s)"}.items()):
        with places[number % 2]:
            st.subheader(title.capitalize(), anchor=False)
            chart(training_charts.lines(frame, {name: title}, title, x=view.x), name, title.capitalize())
    plain(density(frame))
