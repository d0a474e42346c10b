"""The page of one run: how it does now, its curves, and what lies in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import formats
from dashboard.app_pages import puzzle_sections, sections, text_evaluation
from dashboard.app_pages.parts import STATE_COLOURS, cards, link_choice, plain
from dashboard.charts.style import ROWS, STEP, TIME, TOKENS, XAxis
from dashboard.queries.folder import parameters
from dashboard.queries.overview import Overview, has_experts, kind_of_run, overview
from dashboard.resources import run_index, run_metrics, workspace
from hrm_engine.config import kinds
from hrm_engine.config.kinds import Kind
from hrm_engine.store.runs import pick_run, printable, run_id, shared_name
from hrm_engine.store.status import live_state

REFRESH_S = 2.0
SMOOTHING_STEPS = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DEFAULT_SMOOTHING = 5


@dataclass(frozen=True)
class Panels:
    """What the page shows of runs of a kind."""

    numbers: Callable[[Overview], None]
    curves: sections.Section
    evaluation: sections.Section
    throughput: sections.Section
    counter: XAxis
    """Horizontal axis beside steps and time."""
    evaluates_losses: bool
    """Whether the section on evaluations draws losses, for which there is a logarithmic axis."""

    @property
    def sections(self) -> dict[str, sections.Section]:
        """All sections by their names; the ones that all kinds have included."""
        own = {"Curves": self.curves, "Evaluation": self.evaluation, "Throughput": self.throughput}
        return {**own, **COMMON}


COMMON: dict[str, sections.Section] = {
    "Learning rate": sections.learning_rate,
    "System": sections.system,
    "Parameters": sections.parameter_table,
    "Checkpoints": sections.checkpoint_table,
    "Log": sections.log,
}
_WITH_X_AXIS = ("Curves", "Evaluation", "Throughput", "Learning rate")
_WITH_FIGURES = (*_WITH_X_AXIS, "System")


def page() -> None:
    """Choose the run, then show it."""
    run_dirs = workspace().run_dirs()
    if not run_dirs:
        st.switch_page("app_pages/runs.py")
    run_dir = chosen_run(run_dirs)
    if run_dir is None:
        return
    # Once the run has ended nothing changes any more, and nothing needs to be asked for again and again.
    every = REFRESH_S if live_state(run_dir) == "running" else None
    st.fragment(headline, run_every=every)(run_dir, every is not None)
    metrics = run_metrics(run_dir)
    arguments = parameters(run_dir)
    kind = kind_of_run(arguments, metrics.latest("start"), metrics.latest("eval"))
    panels = panels_of(kind)
    look: dict[str, Any] = {"key": "tab", "bind": "query-params", "label_visibility": "collapsed"}
    name = st.segmented_control("Section", list(panels.sections), default="Curves", required=True, **look)
    if name not in panels.sections:  # the link may name any
        name = "Curves"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        view = view_choice(name, panels)
        # Streamlit draws a changed figure anew and with that forgets its zoom (streamlit#8782): to look closely, one
        # can hold the section still while the key figures above go on.
        held = every is not None and name in _WITH_FIGURES and not st.toggle("Live", True, "live", bind="query-params")
    steady = held or name == "Parameters"
    st.fragment(partial(section, panels.sections[name]), run_every=None if steady else every)(run_dir, view)
    if name == "Curves" and has_experts(arguments):
        link = {"view": "Routing", "run": run_id(run_dir, workspace())}
        st.page_link("app_pages/experts.py", label="Which expert gets which tokens: Experts", query_params=link)


def chosen_run(run_dirs: list[Path]) -> Path | None:
    """The run of the link, or the latest one if the link names none; says so and gives None if it is not there."""
    name = st.query_params.get("run", "")
    if not name:
        latest = run_index(workspace().root).refresh().rows
        name = latest[0].id if latest else ""
        st.query_params["run"] = name
    run_dir = pick_run(name, run_dirs, workspace())
    if run_dir is None:
        gone(name, shared_name(name, run_dirs, workspace()))
        return None
    ids = [run_id(path, workspace()) for path in run_dirs]
    st.session_state["run_choice"] = run_id(run_dir, workspace())
    change: dict[str, Any] = {"on_change": link_choice, "args": ("run", "run_choice")}
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(key="run_title", width="stretch"):
            st.text(printable(run_dir.name))
        st.selectbox("Run", ids, key="run_choice", label_visibility="collapsed", width=340, **change)
    return run_dir


def gone(name: str, problem: str | None = None) -> None:
    """There is no such run, or not any more, or ``problem`` says why it is not shown."""
    st.warning(problem or "This run is not in the workspace (any more). It may have been renamed, archived or deleted.")
    st.code(name[:300], language=None, wrap_lines=True)
    st.page_link("app_pages/runs.py", label="All runs")


def headline(run_dir: Path, was_running: bool) -> None:
    """State, message and the numbers one looks at first."""
    if not run_dir.is_dir():
        st.rerun()
    now = overview(run_dir, run_metrics(run_dir), parameters(run_dir))
    if was_running and now.state != "running":
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(now.state, color=STATE_COLOURS[now.state])
        plain(now.sentence)
    panels_of(now.kind).numbers(now)
    if (words := best_words(now)) is not None:
        plain(words)
    for note in now.notes:
        st.warning(note)


def best_words(now: Overview) -> str | None:
    """A line about the best evaluation, where it is not the last one."""
    if not now.best or now.best["step"] == now.evaluated.get("step"):
        return None
    exact = now.best.get("exact_accuracy")
    figures = f"{formats.share(exact)} exactly solved, " if exact is not None else ""
    step, last = (formats.count(row.get("step")) for row in (now.best, now.evaluated))
    loss = formats.loss(now.best.get("loss"))
    return f"Best evaluation: {figures}loss {loss} at step {step}. The last one is of step {last}."


def numbers(now: Overview) -> None:
    """The row of key figures."""
    card = cards(140)
    card("Training loss", formats.loss(now.train.get("loss")))
    card(
        "Validation loss",
        formats.loss(now.evaluated.get("loss")),
        delta=None if now.gain is None else f"{now.gain:+.3f}",
        delta_color="inverse",
        help="Last evaluation, deepest segment, in nats per token; below it the difference to the unigram model",
    )
    card(
        "Unigram model",
        formats.loss(now.evaluated.get("unigram_loss")),
        help="Loss of a model that knows only how frequent each token is, on the same tokens",
    )
    card("Perplexity", formats.perplexity(now.evaluated.get("loss")))
    card("Tokens/s", formats.rate(now.train.get("tokens_per_s")))
    sections.progress(now, card)


def view_choice(name: str, panels: Panels) -> sections.View:
    """How the curves of a section are drawn; it stands in the link, and bad values there fall back to the defaults."""
    axes = {axis.key: axis for axis in (STEP, TIME, panels.counter)}
    x, smoothing, log_y = STEP.key, DEFAULT_SMOOTHING, False
    if name in _WITH_X_AXIS:
        x = st.segmented_control(
            "Horizontal axis",
            list(axes),
            default=STEP.key,
            required=True,
            key="x",
            bind="query-params",
            format_func=lambda key: axes[key].label,
        )
    if name == "Curves":
        smoothing = st.select_slider(
            "Smoothing (steps)",
            SMOOTHING_STEPS,
            value=DEFAULT_SMOOTHING,
            key="smoothing",
            bind="query-params",
            help="A row counts half as much after so many optimizer steps, however densely rows were written",
            width=260,
        )
    if name == "Curves" or (name == "Evaluation" and panels.evaluates_losses):
        log_y = st.toggle("Logarithmic loss", key="log", bind="query-params")
    return sections.View(x if x in axes else STEP.key, smoothing, log_y)


def section(draw: sections.Section, run_dir: Path, view: sections.View) -> None:
    """One section, unless the run has gone since the page was opened."""
    if not run_dir.is_dir():
        gone(run_id(run_dir, workspace()))
        return
    draw(run_dir, view)


TEXT = Panels(numbers, sections.curves, text_evaluation.evaluation, sections.throughput, TOKENS, True)
PUZZLE = Panels(
    puzzle_sections.numbers, puzzle_sections.curves, puzzle_sections.evaluation, puzzle_sections.throughput, ROWS, False
)
GENERIC = Panels(
    sections.all_numbers,
    partial(sections.curves, unit_name="as it is minimised"),
    sections.all_evaluations,
    sections.all_rates,
    ROWS,
    False,
)
PANELS = {"text": TEXT, "puzzle": PUZZLE}


def panels_of(kind: Kind | None) -> Panels:
    """The panels of a kind; general ones where it has none of its own or is not known."""
    return PANELS.get(kinds.words_of(kind).panels, GENERIC)


if __name__ == "__main__":
    page()
