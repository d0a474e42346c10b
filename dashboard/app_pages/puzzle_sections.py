"""What the page of a run shows of a puzzle run: rows instead of tokens, exactly solved puzzles before all else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import chart, nothing_yet, plain
from dashboard.app_pages.sections import View, incident_table, progress
from dashboard.charts import evaluation as evaluation_charts
from dashboard.charts import puzzles as puzzle_charts
from dashboard.charts import training as training_charts
from dashboard.queries.metrics import density
from dashboard.queries.overview import Overview
from dashboard.queries.smoothing import smoothed
from dashboard.resources import run_metrics

_ACCURACIES = {"exact_accuracy": "exact", "cell_accuracy": "cells", "halt_accuracy": "halting"}
_DEPTHS = ("exact_accuracy", "cell_accuracy")


def numbers(now: Overview) -> None:
    """The row of key figures."""
    row = st.grid("auto", min_column_width=140)
    card = partial(row.metric, border=True, height="stretch")
    found = now.puzzles
    beside = partial(card, delta_color="off", delta_arrow="off")
    card(
        "Exactly solved",
        formats.share(found.exact_accuracy),
        help="Last evaluation on held-out puzzles: every cell right after the last segment",
    )
    beside(
        "Cells right",
        formats.share(found.cell_accuracy),
        delta=None if found.copy_cell_accuracy is None else f"copying {formats.share(found.copy_cell_accuracy)}",
        help="Below it the share that copying the puzzle would have",
    )
    beside(
        "Segments used",
        formats.rate(found.act_steps_mean),
        delta=None
        if found.exact_accuracy_when_halting is None
        else f"{formats.share(found.exact_accuracy_when_halting)} exact",
        help="On average until it halts by itself; below it the share that is exactly solved then",
    )
    beside(
        "Validation loss",
        formats.loss(now.eval_loss),
        delta=f"training {formats.loss(now.train_loss)}",
        help="Nats per cell after the last segment; the training loss holds the halting losses as well",
    )
    card("Segments/s", formats.rate(now.row_segments_per_s), help="Segments of puzzles per second in training")
    progress(now, card)


def curves(run_dir: Path, view: View) -> None:
    """Loss and accuracies over the training, and what the halting head learns."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    train = metrics.train(("loss",), x=view.x)
    evaluation = metrics.evaluation((*_ACCURACIES, "act_steps_mean"), x=view.x)
    if train.empty and evaluation.empty:
        nothing_yet("No training row has been written yet.", "The curve appears here with the first one.")
        return
    smooth = smoothed(train, view.smoothing_steps) if view.smoothing_steps else None
    figure = training_charts.loss_curve(
        train,
        evaluation,
        x=view.x,
        smooth=smooth,
        smoothing_steps=view.smoothing_steps,
        log_y=view.log_y,
        unit_name="nats/cell",
    )
    left, right = st.columns(2)
    with left:
        st.subheader("Loss", anchor=False)
        chart(figure.update_layout(height=360), "loss_curve", "Training and validation loss")
    results = metrics.train(tuple(_ACCURACIES), x=view.x)
    with right:
        st.subheader("Accuracy", anchor=False)
        figure = puzzle_charts.accuracies(results, evaluation, _ACCURACIES, x=view.x)
        chart(figure, "accuracies", "Share of exactly solved puzzles, right cells and right halting decisions")
    halting = metrics.train(("act_steps_mean", "halt_loss", "continue_loss"), x=view.x)
    with left:
        st.subheader("Segments until it halts", anchor=False)
        names = {"act_steps_mean": "segments"}
        figure = training_charts.lines(halting, names, "segments, on average", x=view.x)
        chart(figure, "act_steps", "Segments of the puzzles that halted, on average")
    with right:
        st.subheader("Halting losses", anchor=False)
        names = {"halt_loss": "halt", "continue_loss": "continue"}
        chart(
            training_charts.lines(halting, names, "loss (nats)", x=view.x), "halt_losses", "Losses of the halting head"
        )
    plain(density(train))
    incident_table(metrics)


def evaluation(run_dir: Path, view: View) -> None:
    """What each segment of thinking is worth."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    depths = metrics.depths(_DEPTHS, x=view.x)
    if depths.empty:
        nothing_yet(
            "No evaluation yet.",
            "One is made every `--eval-every` steps and at the end; `--eval-rows 0` switches them off.",
        )
        return
    left, right = st.columns(2)
    titles = {"exact_accuracy": "Exactly solved by segment", "cell_accuracy": "Cells right by segment"}
    for place, (name, title) in zip((left, right), titles.items(), strict=True):
        with place:
            st.subheader(title, anchor=False)
            chart(evaluation_charts.by_depth(depths, name, x=view.x), f"depth_{name}", f"{title}, over the training")
            if depths["segment"].nunique() > 1:
                st.subheader("What further segments change", anchor=False)
                figure = evaluation_charts.depth_gain(depths, name)
                chart(figure, f"gain_{name}", f"{title}: change against the first segment")
    link = {"run": st.query_params.get("run", "")}
    st.page_link("app_pages/puzzles.py", label="By difficulty, halting and failures: Puzzles", query_params=link)


def throughput(run_dir: Path, view: View) -> None:
    """How fast it goes."""
    metrics = run_metrics(run_dir)
    metrics.refresh()
    frame = metrics.train(("row_segments_per_s", "rows_per_s", "step_time_s"), x=view.x)
    if frame.empty:
        nothing_yet("No training row has been written yet.", "Throughput appears here with the first one.")
        return
    left, right = st.columns(2)
    panels = (
        (left, "Segments per second", {"row_segments_per_s": "segments of puzzles"}, "segments/s", ",.3~s"),
        (right, "Fresh puzzles per second", {"rows_per_s": "puzzles"}, "puzzles/s", ",.3~s"),
        (left, "Time of a step", {"step_time_s": "time"}, "time of one optimizer step (s)", ""),
    )
    for place, title, series, y_title, y_format in panels:
        with place:
            st.subheader(title, anchor=False)
            figure = training_charts.lines(frame, series, y_title, x=view.x, y_format=y_format)
            chart(figure, next(iter(series)), title)
    plain(density(frame))
