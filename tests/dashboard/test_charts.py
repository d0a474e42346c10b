"""Figures: what is drawn, on which axes, in colours that can be told from both backgrounds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from dashboard.charts import evaluation, style, training
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.smoothing import smoothed
from tests.dashboard.run_folders import UNIGRAM_LOSS, append_timed, events

STARTED = datetime(2026, 3, 1, tzinfo=UTC)
LIGHT, DARK = "#ffffff", "#15181c"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> RunMetrics:
    run = tmp_path_factory.mktemp("run")
    append_timed(run / "metrics.jsonl", events(1, 4000), STARTED)
    found = RunMetrics(run)
    found.refresh()
    return found


def brightness(colour: str) -> float:
    """Relative luminance as in WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*style.SERIES, *style.depth_colours(12)])
@pytest.mark.parametrize("background", [LIGHT, DARK])
def test_colours_stand_out_on_light_and_dark(colour: str, background: str) -> None:
    assert contrast(colour, background) >= 3


@pytest.mark.parametrize("number", [0, 1, 2, 5, 16])
def test_every_depth_has_its_own_colour(number: int) -> None:
    assert len(set(style.depth_colours(number))) == number


def test_the_background_colours_are_those_of_the_theme() -> None:
    theme = (Path(style.__file__).parents[1] / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    for colour in (LIGHT, DARK, *style.SERIES):
        assert f'"{colour}"' in theme


def test_loss_curve_has_range_course_validation_and_baseline(metrics: RunMetrics) -> None:
    train = metrics.train(("loss",))
    figure = training.loss_curve(
        train, metrics.evaluation(), smooth=smoothed(train, 50), smoothing_steps=50, log_y=True
    )
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn) == ["range low", "range", "training", "training, smoothed over 50 steps", "validation",
                           "unigram model"]  # fmt: skip
    assert len(drawn["training"].x) == len(train) == 1500
    assert set(drawn["unigram model"].y) == {UNIGRAM_LOSS}
    assert drawn["range"].fill == "tonexty"
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.xaxis.title.text == "optimizer step"
    assert figure.layout.yaxis.title.text == "loss (nats/token)"


def test_wall_time_is_in_a_unit_that_suits(metrics: RunMetrics) -> None:
    train, evaluated = metrics.train(("loss",), x="time"), metrics.evaluation(x="time")
    figure = training.loss_curve(train, evaluated, x="time")
    assert figure.layout.xaxis.title.text == "wall time since the start (min)"
    validation = next(trace for trace in figure.data if trace.name == "validation")
    assert validation.x[-1] == pytest.approx(4000 * 0.5 / 60)
    assert style.time_axis(30)[0].title.endswith("(s)")
    assert style.time_axis(10 * 3600)[0].title.endswith("(h)")
    assert style.time_axis(30 * 86400)[0].title.endswith("(d)")


def test_one_row_is_visible_as_a_point() -> None:
    row = pd.DataFrame({"name": ["loss"], "x": [1.0], "step": [1.0], "min": [2.0], "max": [2.0], "last": [2.0]})
    none = pd.DataFrame({"x": [], "loss": [], "unigram_loss": []})
    figure = training.loss_curve(row, none)
    assert [trace.mode for trace in figure.data] == ["lines+markers"]


def test_lines_leave_out_what_was_not_measured(metrics: RunMetrics) -> None:
    frame = metrics.train(("lr", "no_such_metric"))
    figure = training.lines(frame, {"lr": "lr", "no_such_metric": "nothing"}, "learning rate")
    assert {trace.name for trace in figure.data if trace.showlegend is not False} == {"lr", "lr, range"}


def test_a_curve_for_every_segment(metrics: RunMetrics) -> None:
    figure = evaluation.by_depth(metrics.depths(), "loss", evaluation=metrics.evaluation())
    assert [trace.name for trace in figure.data] == ["segment 1", "segment 2", "segment 3", "unigram model"]
    accuracy = evaluation.by_depth(metrics.depths(), "token_accuracy")
    assert accuracy.layout.yaxis.tickformat == ".0%"


def test_gain_of_further_segments_begins_at_zero(metrics: RunMetrics) -> None:
    figure = evaluation.depth_gain(metrics.depths(), "loss")
    assert [trace.y[0] for trace in figure.data] == [0.0] * 4
    assert all(trace.y[-1] < 0 for trace in figure.data)
    assert figure.data[-1].name == "step 4,000"


def test_bytes_get_the_unit_of_the_largest(metrics: RunMetrics) -> None:
    frame = metrics.system()
    disk = training.sizes(frame, {"disk_free_bytes": "free"}, "free space")
    assert disk.layout.yaxis.title.text == "free space (GB)"
    assert disk.data[-1].y[0] == pytest.approx(412)
    shares = training.shares(frame, {"cpu_percent": "CPU", "gpu_percent": "GPU"})
    assert tuple(shares.layout.yaxis.range) == (0, 102)


def test_zoom_survives_new_rows_but_not_another_axis(metrics: RunMetrics) -> None:
    train, none = metrics.train(("loss",)), metrics.evaluation()
    one, two = (training.loss_curve(train, none).layout.uirevision for _ in range(2))
    assert one == two
    assert training.loss_curve(train, none, log_y=True).layout.uirevision != one


def test_adaptive_depth_beside_full_depth(metrics: RunMetrics) -> None:
    frame = metrics.evaluation(("adaptive_loss", "act_steps_mean"))
    names = {"loss": "all segments", "adaptive_loss": "halts by itself"}
    figure = evaluation.curves(frame, names, "loss", x="step", hover=".4f")
    full, adaptive = figure.data
    assert [full.name, adaptive.name] == ["all segments", "halts by itself"]
    assert list(adaptive.y) == pytest.approx([y + 0.004 for y in full.y])


@pytest.mark.parametrize(("steps", "ticks"), [([7], (7,)), ([1, 2, 3], 1), ([0, 4, 8], 1), ([0, 9], None), ([], None)])
def test_few_steps_have_a_tick_each(steps: list[int], ticks: object) -> None:
    drawn = style.figure(style.STEP, "loss")
    style.add_line(drawn, steps, [1.0] * len(steps), "loss", style.BLUE)
    axis = style.whole_steps(drawn).layout.xaxis
    assert (axis.tickvals or axis.dtick) == ticks


@pytest.mark.parametrize(
    ("lowest", "ticks"), [(1.1, "D1"), (0.02, "D2"), (1e-7, 1), (1e-300, None), (0.0, "D1"), (float("nan"), "D1")]
)
def test_labels_of_a_log_axis_stand_clear_of_each_other(lowest: float, ticks: object) -> None:
    drawn = style.figure(style.STEP, "loss", log_y=True)
    style.add_line(drawn, [1, 2, 3], [9.5, lowest, None], "loss", style.BLUE)
    assert style.log_ticks(drawn).layout.yaxis.dtick == ticks
