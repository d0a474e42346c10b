"""The sections of the page of a run. Each reads its part of the run folder and draws it, nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard import formats
from dashboard.app_pages.parts import cards, chart, nothing_yet, plain, problem_box, search_box, table
from dashboard.charts import evaluation as evaluation_charts
from dashboard.charts import training as training_charts
from dashboard.queries.folder import CHECKPOINTS, log_tail, parameters
from dashboard.queries.metrics import RunMetrics, density
from dashboard.queries.overview import Overview
from dashboard.queries.smoothing import smoothed
from dashboard.resources import fresh_metrics
from hrm_engine.store.paths import LOG_FILE


@dataclass(frozen=True)
class View:
    """How curves are drawn: horizontal axis, half-life of the smoothing in steps, logarithmic losses."""

    x: str = "step"
    smoothing_steps: int = 0
    log_y: bool = False


Section = Callable[[Path, View], None]


@dataclass(frozen=True)
class Panel:
    """A figure of curves: ``series`` is metric to name, all of one unit."""

    title: str
    series: Mapping[str, str]
    y_title: str
    y_format: str = ""


def progress(now: Overview, card: Callable[..., object]) -> None:
    """The key figures at the end of the row: how far it is, and how long that takes."""
    planned = None if now.planned_steps is None else f"of {now.planned_steps:,}"
    card("Step", formats.count(now.step), delta=planned, delta_color="off", delta_arrow="off")
    if now.state == "running":
        card("Time left", formats.duration(now.eta_s))
    else:
        card("Duration", formats.duration(now.duration_s))


def curves(run_dir: Path, view: View, *, unit_name: str = "nats/token") -> None:
    """Loss over the training, and its incidents."""
    metrics = fresh_metrics(run_dir)
    train, evaluation = metrics.train(("loss",), x=view.x), metrics.evaluation(x=view.x)
    if loss_curve(train, evaluation, view, unit_name):
        plain(density(train))
        incident_table(metrics)


def loss_curve(
    train: pd.DataFrame,
    evaluation: pd.DataFrame,
    view: View,
    unit_name: str,
    *,
    title: str = "",
    height: int | None = None,
) -> bool:
    """The loss of both frames; a notice and False while they are empty."""
    if train.empty and evaluation.empty:
        nothing_yet("No training row has been written yet.", "The curve appears here with the first one.")
        return False
    figure = training_charts.loss_curve(
        train,
        evaluation,
        x=view.x,
        smooth=smoothed(train, view.smoothing_steps) if view.smoothing_steps else None,
        smoothing_steps=view.smoothing_steps,
        log_y=view.log_y,
        unit_name=unit_name,
    )
    figure.update_layout(height=height or figure.layout.height)
    chart(figure, "loss_curve", "Training and validation loss", title)
    return True


def panels(run_dir: Path, view: View, grid: Sequence[Panel], *, awaited: str) -> None:
    """Curves of the training in two columns; ``awaited`` is what appears with the first row."""
    metrics = fresh_metrics(run_dir)
    frame = metrics.train([name for panel in grid for name in panel.series], x=view.x)
    if frame.empty:
        nothing_yet("No training row has been written yet.", f"{awaited} appears here with the first one.")
        return
    places = st.columns(2)
    for number, panel in enumerate(grid):
        with places[number % 2]:
            figure = training_charts.lines(frame, panel.series, panel.y_title, x=view.x, y_format=panel.y_format)
            chart(figure, next(iter(panel.series)), panel.title, panel.title)
    plain(density(frame))


def depth_panels(
    depths: pd.DataFrame, titles: Mapping[str, str], view: View, evaluation: pd.DataFrame | None = None
) -> None:
    """Two metrics of every segment over the training, and their change against the first segment."""
    for place, (metric, title) in zip(st.columns(2), titles.items(), strict=True):
        with place:
            is_loss = metric == "loss"
            figure = evaluation_charts.by_depth(
                depths, metric, x=view.x, log_y=is_loss and view.log_y, evaluation=evaluation if is_loss else None
            )
            chart(figure, f"depth_{metric}", f"{title}, over the training", title)
            if depths["segment"].nunique() > 1:
                figure, words = evaluation_charts.depth_gain(depths, metric), "What further segments change"
                chart(figure, f"gain_{metric}", f"{title}: change against the first segment", words)


_NOT_MEASURED = frozenset({"eval_time_s"})


def all_numbers(now: Overview) -> None:
    """The row of key figures of a training that has no panels of its own."""
    card = cards(140)
    card("Training loss", formats.loss(now.train.get("loss")))
    card("Validation loss", formats.loss(now.evaluated.get("loss")), help="Last evaluation")
    progress(now, card)


def all_evaluations(run_dir: Path, view: View) -> None:
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


def all_rates(run_dir: Path, view: View) -> None:
    """Every rate of the training."""
    metrics = fresh_metrics(run_dir)
    rates = [name for name in metrics.names("train") if name.endswith("_per_s")]
    titles = {name: name.removesuffix("_per_s").replace("_", " ") + "/s" for name in rates}
    titles["step_time_s"] = "time of one optimizer step (s)"
    grid = [Panel(title.capitalize(), {name: title}, title) for name, title in titles.items()]
    panels(run_dir, view, grid, awaited="Throughput")


def incident_table(metrics: RunMetrics) -> None:
    """What interrupted or disturbed the training, if anything did."""
    incidents = metrics.incidents()
    if len(incidents):
        st.subheader("Incidents", anchor=False)
        make = st.column_config
        columns = {
            "step": make.NumberColumn("Step", format="%,d", width="small"),
            "event": make.TextColumn("Event", width="small"),
            "what": make.TextColumn("What", width="large"),
        }
        table(incidents, "incidents", columns, "Spikes, non-finite losses, alerts and interruptions")


_THROUGHPUT = (
    Panel(
        "Tokens per second",
        {"tokens_per_s": "fresh label tokens", "token_segments_per_s": "label tokens times segments"},
        "tokens/s",
        ",.3~s",
    ),
    Panel("Time of a step", {"step_time_s": "time"}, "time of one optimizer step (s)"),
    Panel("Segments per token", {"act_steps_mean": "segments"}, "segments run, on average"),
)
_LEARNING_RATE = (
    Panel("Learning rate", {"lr": "lr"}, "learning rate", ".3~e"),
    Panel("Gradient norm", {"grad_norm": "norm"}, "norm before clipping"),
)
throughput = partial(panels, grid=_THROUGHPUT, awaited="Throughput")
learning_rate = partial(panels, grid=_LEARNING_RATE, awaited="The learning rate")


def system(run_dir: Path, view: View) -> None:
    """The machine: processor, memory, graphics processor, disk."""
    metrics = fresh_metrics(run_dir)
    frame = metrics.system()
    if frame.empty:
        nothing_yet("The machine has not been measured yet.", "A row is written every 10 seconds of training.")
        return
    left, right = st.columns(2)
    with left:
        names = {"cpu_percent": "CPU, all cores", "memory_percent": "memory of the machine", "gpu_percent": "GPU"}
        figure = training_charts.shares(frame, names)
        chart(figure, "shares", "Use of processor and memory in percent", "Processor and memory")
    with right:
        figure = training_charts.sizes(frame, {"memory_rss_bytes": "resident", "gpu_memory_bytes": "GPU"}, "memory")
        chart(figure, "memory", "Memory of the training process", "Memory of the training")
    with left:
        figure = training_charts.sizes(frame, {"disk_free_bytes": "free"}, "free space")
        chart(figure, "disk", "Free space on the run folder's disk", "Free disk space")
    plain(density(frame))


def parameter_table(run_dir: Path, view: View) -> None:
    """Every parameter of the run, resolved."""
    values = parameters(run_dir)
    if values.problem is not None:
        problem_box("The parameters cannot be read.", values.problem)
        return
    search = search_box("Name, value or group", 420, label="Search parameters", key="parameter_search")
    frame = values.frame(search)
    plain(f"{len(frame):,} of {len(values.lines):,} parameters")
    make = st.column_config.TextColumn
    columns = {
        "name": make("Parameter", width="medium"),
        "value": make("Value", width="large"),
        "group": make("Group", width="medium"),
    }
    table(frame, "parameters", columns, "Parameters of the run", height="content")


def checkpoint_table(run_dir: Path, view: View) -> None:
    """Checkpoints, the newest first, and whether each is what was written."""

    rows = CHECKPOINTS.of(run_dir, hash_all=st.session_state.get("hash_all") == str(run_dir))
    if not rows:
        nothing_yet("There is no checkpoint.", "One is saved every `--save-every` steps, and when a session stops.")
        return
    unread = [checkpoint.bytes for checkpoint in rows if not checkpoint.hashed]
    if num_damaged := sum(bool(checkpoint.problems) for checkpoint in rows):
        st.warning(f"Damaged: {num_damaged} of {len(rows)} checkpoints. Resuming uses the newest valid one.")
    if unread:
        total = formats.size(sum(unread))
        plain(f"Of {len(unread)} large checkpoints ({total}) only the sizes of the files were compared.")
        st.button("Compare contents too", on_click=st.session_state.update, args=({"hash_all": str(run_dir)},))
    make = st.column_config
    frame = pd.DataFrame(
        {
            "step": checkpoint.step,
            "validity": validity(checkpoint.hashed, checkpoint.problems),
            "size": formats.size(checkpoint.bytes),
            "saved": checkpoint.saved,
            "name": checkpoint.name,
        }
        for checkpoint in rows
    )
    columns = {
        "step": make.NumberColumn("Step", format="%,d", width="small"),
        "validity": make.TextColumn("Validity", width="large"),
        "size": make.TextColumn("Size", width="small", alignment="right"),
        "saved": make.DatetimeColumn("Saved", format="distance"),
        "name": make.TextColumn("Folder", width="medium"),
    }
    table(frame, "checkpoints", columns, "Checkpoints and their validity", height="content")


def validity(hashed: bool, problems: tuple[str, ...]) -> str:
    """One cell of text for a checkpoint's state."""
    if problems:
        return "damaged: " + "; ".join(problems)
    return "valid" if hashed else "sizes are right, contents not compared"


def log(run_dir: Path, view: View) -> None:
    """The end of run.log."""
    tail = log_tail(run_dir / LOG_FILE)
    if tail is None or not tail.text.strip():
        nothing_yet("The log is empty.", "The trainer writes `run.log` as soon as it starts.")
        return
    amount = f"the last {tail.num_lines:,} lines" if tail.cut else f"{tail.num_lines:,} lines"
    plain(f"run.log, {formats.size(tail.total_bytes)}: {amount}. To follow it in a terminal: lab logs NAME -f")
    with st.container(height=620, border=False, autoscroll=True):
        st.code(tail.text, language=None, wrap_lines=True)
