"""Panels of a training that has none of its own: all numbers of its rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import cards, chart, nothing_yet
from dashboard.app_pages.sections import Panel, View, curves, panels, progress
from dashboard.charts import evaluation as evaluation_charts
from dashboard.queries.overview import Overview
from dashboard.resources import fresh_metrics

_NOT_MEASURED = frozenset({"eval_time_s"})

loss_curves = partial(curves, unit_name="as it is minimised")


def numbers(now: Overview) -> None:
    """The row of key figures."""
    card = cards(140)
    card("Training loss", formats.loss(now.train_loss))
    card("Validation loss", formats.loss(now.eval_loss), help="Last evaluation")
    progress(now, card)


def evaluation(run_dir: Path, view: View) -> None:
    """Every number of the evaluations, over the training."""
    metrics = fresh_metrics(run_dir)
    names = [name for name in metrics.names("eval") if name not in _NOT_MEASURED]
    rows = metrics.evaluation([name for name in names if name != "loss"], x=view.x)
    if rows.empty:
        nothing_yet("No evaluation yet.", "One is made every `--eval-every` steps and at the end.")
        return
    places = st.columns(2)
    for number, name in enumerate(names):
        with places[number % 2]:
            title = name.replace("_", " ").capitalize()
            figure = evaluation_charts.curves(rows, {name: title}, title, x=view.x, hover=",.4f")
            chart(figure, f"eval_{name}", f"{title} in the evaluations", title)


def throughput(run_dir: Path, view: View) -> None:
    """Every rate of the training."""
    metrics = fresh_metrics(run_dir)
    rates = [name for name in metrics.names("train") if name.endswith("_per_s")]
    titles = {name: name.removesuffix("_per_s").replace("_", " ") + "/s" for name in rates}
    titles["step_time_s"] = "time of one optimizer step (s)"
    grid = [Panel(title.capitalize(), {name: title}, title) for name, title in titles.items()]
    panels(run_dir, view, grid, awaited="Throughput")
