"""The section of a text run about its evaluations: depth by depth, where tokens halt by themselves, and samples."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.app_pages.parts import chart, nothing_yet, plain
from dashboard.app_pages.sections import View, depth_panels
from dashboard.charts import evaluation as evaluation_charts
from dashboard.queries.metrics import RunMetrics
from dashboard.resources import fresh_metrics, run_metrics

_DEPTHS = {"loss": "Loss by segment", "token_accuracy": "Token accuracy by segment"}


def evaluation(run_dir: Path, view: View) -> None:
    """Loss and accuracy of each segment, and samples of the model's text."""
    metrics = fresh_metrics(run_dir)
    rows = metrics.evaluation(x=view.x)
    if rows.empty:
        nothing_yet(
            "No evaluation yet.",
            "One is made every `--eval-every` steps and at the end; `--eval-batches 0` switches them off.",
        )
        return
    depths = metrics.depths(x=view.x)
    if len(depths):
        depth_panels(depths, _DEPTHS, view, rows)
    adaptive_depth(metrics, view)
    samples(run_dir)


def adaptive_depth(metrics: RunMetrics, view: View) -> None:
    """Cost and gain of tokens that halt by themselves; nothing for a model of one segment."""
    rows = metrics.evaluation(("adaptive_loss", "act_steps_mean"), x=view.x).dropna(subset="adaptive_loss")
    if rows.empty:
        return
    left, right = st.columns(2)
    with left:
        names = {"loss": "all segments", "adaptive_loss": "halts by itself"}
        figure = evaluation_charts.curves(rows, names, "validation loss (nats/token)", x=view.x, hover=",.4f")
        words = "Validation loss at full depth and where each token halts by itself"
        chart(figure, "adaptive_loss", words, "Where each token halts by itself: loss")
    with right:
        names = {"act_steps_mean": "segments"}
        figure = evaluation_charts.curves(rows, names, "segments run, on average", x=view.x, hover=".2f")
        words = "Mean depth at which tokens halt by themselves"
        chart(figure, "adaptive_depth", words, "Where each token halts by itself: depth")


def samples(run_dir: Path) -> None:
    """Generated texts, the newest first."""
    rows = run_metrics(run_dir).samples()
    if rows.empty:
        return
    st.subheader("Samples", anchor=False)
    steps = [int(step) for step in rows["step"]]
    choice = st.selectbox(
        "Sample of step", range(len(steps)), format_func=lambda at: f"step {steps[at]:,}", key="sample", width=220
    )
    row = rows.iloc[min(choice, len(rows) - 1)]
    plain("Prompt")
    st.code(row["prompt"], language=None, wrap_lines=True)
    plain("Generated text")
    st.code(row["text"], language=None, wrap_lines=True)
