"""Panels of a puzzle run: rows instead of tokens, exactly solved puzzles first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import cards, chart, nothing_yet, plain
from dashboard.app_pages.sections import Panel, View, depth_panels, incident_table, loss_curve, panels, progress
from dashboard.charts import puzzles as puzzle_charts
from dashboard.charts import training as training_charts
from dashboard.queries.metrics import density
from dashboard.queries.overview import Overview
from dashboard.resources import fresh_metrics

_ACCURACIES = {"exact_accuracy": "exact", "cell_accuracy": "cells", "halt_accuracy": "halting"}
_DEPTHS = {"exact_accuracy": "Exactly solved by segment", "cell_accuracy": "Cells right by segment"}


def numbers(now: Overview) -> None:
    """The row of key figures."""
    card = cards(140)
    beside = partial(card, delta_color="off", delta_arrow="off")
    evaluated, halting = now.evaluated, now.evaluated.get("exact_accuracy_when_halting")
    copying = evaluated.get("copy_cell_accuracy")
    card(
        "Exactly solved",
        formats.share(evaluated.get("exact_accuracy")),
        help="Last evaluation on held-out puzzles: every cell right after the last segment",
    )
    beside(
        "Cells right",
        formats.share(evaluated.get("cell_accuracy")),
        delta=None if copying is None else f"copying {formats.share(copying)}",
        help="Below it the share that copying the puzzle would have",
    )
    beside(
        "Segments used",
        formats.rate(evaluated.get("act_steps_mean")),
        delta=None if halting is None else f"{formats.share(halting)} exact",
        help="On average until it halts by itself; below it the share that is exactly solved then",
    )
    beside(
        "Validation loss",
        formats.loss(evaluated.get("loss")),
        delta=f"training {formats.loss(now.train.get('loss'))}",
        help="Nats per cell after the last segment; the training loss holds the halting losses as well",
    )
    rate = formats.rate(now.train.get("row_segments_per_s"))
    card("Segments/s", rate, help="Segments of puzzles per second in training")
    progress(now, card)


def curves(run_dir: Path, view: View) -> None:
    """Loss and accuracies over the training, and the learning of the halting head."""
    metrics = fresh_metrics(run_dir)
    train = metrics.train(("loss",), x=view.x)
    evaluation = metrics.evaluation((*_ACCURACIES, "act_steps_mean"), x=view.x)
    left, right = st.columns(2)
    with left:
        if not loss_curve(train, evaluation, view, "nats/cell", title="Loss", height=360):
            return
    results = metrics.train(tuple(_ACCURACIES), x=view.x)
    with right:
        figure = puzzle_charts.accuracies(results, evaluation, _ACCURACIES, x=view.x)
        words = "Share of exactly solved puzzles, right cells and right halting decisions"
        chart(figure, "accuracies", words, "Accuracy")
    halting = metrics.train(("act_steps_mean", "halt_loss", "continue_loss"), x=view.x)
    with left:
        names = {"act_steps_mean": "segments"}
        figure = training_charts.lines(halting, names, "segments, on average", x=view.x)
        chart(figure, "act_steps", "Segments of the puzzles that halted, on average", "Segments until it halts")
    with right:
        names = {"halt_loss": "halt", "continue_loss": "continue"}
        figure = training_charts.lines(halting, names, "loss (nats)", x=view.x)
        chart(figure, "halt_losses", "Losses of the halting head", "Halting losses")
    plain(density(train))
    incident_table(metrics)


def evaluation(run_dir: Path, view: View) -> None:
    """Accuracy of each segment."""
    metrics = fresh_metrics(run_dir)
    depths = metrics.depths(tuple(_DEPTHS), x=view.x)
    if depths.empty:
        nothing_yet(
            "No evaluation yet.",
            "One is made every `--eval-every` steps and at the end; `--eval-rows 0` switches them off.",
        )
        return
    depth_panels(depths, _DEPTHS, view)
    link = {"run": st.query_params.get("run", "")}
    st.page_link("app_pages/puzzles.py", label="By difficulty, halting and failures: Puzzles", query_params=link)


throughput = partial(
    panels,
    grid=(
        Panel("Segments per second", {"row_segments_per_s": "segments of puzzles"}, "segments/s", ",.3~s"),
        Panel("Fresh puzzles per second", {"rows_per_s": "puzzles"}, "puzzles/s", ",.3~s"),
        Panel("Time of a step", {"step_time_s": "time"}, "time of one optimizer step (s)"),
    ),
    awaited="Throughput",
)
