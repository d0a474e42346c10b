"""Frames for figures: axes, smoothing, what stands behind a point, and what the rows say of the run."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dashboard.queries.folder import Parameters
from dashboard.queries.metrics import MAX_POINTS, RunMetrics, density
from dashboard.queries.overview import overview
from hrm_engine.store.processes import host_name
from hrm_engine.store.status import RunStatus, write_status
from tests.dashboard.run_folders import (
    NUM_SEGMENTS,
    SECONDS_PER_STEP,
    TOKENS_PER_STEP,
    UNIGRAM_LOSS,
    append_events,
    append_timed,
    events,
    train_fields,
    write_checkpoint,
)

STARTED = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    append_timed(tmp_path / "metrics.jsonl", events(1, 200), STARTED)
    return tmp_path


def opened(run: Path) -> RunMetrics:
    metrics = RunMetrics(run)
    metrics.refresh()
    return metrics


def test_curves_lie_on_steps_time_and_tokens(run: Path) -> None:
    metrics = opened(run)
    for axis, unit in (("step", 1.0), ("time", SECONDS_PER_STEP), ("tokens", TOKENS_PER_STEP)):
        train = metrics.train(("loss",), x=axis)
        assert list(train["x"]) == pytest.approx([step * unit for step in range(1, 201)])
        evaluation = metrics.evaluation(x=axis)
        assert list(evaluation["x"]) == pytest.approx([step * unit for step in (0, 50, 100, 150, 200)])


def test_an_unknown_axis_is_steps(run: Path) -> None:
    assert list(opened(run).train(("loss",), x="no such axis")["x"])[-1] == 200


def test_every_segment_of_every_evaluation(run: Path) -> None:
    depths = opened(run).depths()
    assert len(depths) == 5 * NUM_SEGMENTS
    last = depths[depths["step"] == 200]
    assert list(last["segment"]) == [1, 2, 3]
    assert list(last["loss"]) == sorted(last["loss"], reverse=True)
    assert last["token_accuracy"].notna().all()


def test_an_evaluation_made_twice_at_a_step_counts_once(run: Path) -> None:
    append_events(run / "metrics.jsonl", [("eval", 200, {"loss": 1.25, "unigram_loss": UNIGRAM_LOSS})])
    evaluation = opened(run).evaluation()
    assert list(evaluation["step"]) == [0, 50, 100, 150, 200]
    assert evaluation["loss"].iloc[-1] == 1.25


def test_new_rows_are_seen_after_a_refresh(run: Path) -> None:
    metrics = opened(run)
    before = metrics.train(("loss",))
    assert metrics.train(("loss",)) is before
    append_timed(run / "metrics.jsonl", events(201, 210), STARTED)
    metrics.refresh()
    assert len(metrics.train(("loss",))) == 210


def test_many_rows_become_few_points_with_their_range(tmp_path: Path) -> None:
    noise = random.Random(0)
    rows = [("train", step, train_fields(step, noise)) for step in range(1, 2 * MAX_POINTS + 1)]
    append_timed(tmp_path / "metrics.jsonl", rows, STARTED)
    train = opened(tmp_path).train(("loss",))
    losses = [fields["loss"] for _, _, fields in rows]
    assert len(train) == MAX_POINTS
    assert train["count"].sum() == len(rows)
    assert train["min"].min() == pytest.approx(min(losses))
    assert train["max"].max() == pytest.approx(max(losses))
    assert density(train).startswith("3,000 rows in 1,500 points")


def test_few_rows_are_all_drawn(run: Path) -> None:
    assert density(opened(run).train(("loss",))) == "200 rows, each one drawn"


def test_samples_come_newest_first(run: Path) -> None:
    samples = opened(run).samples()
    assert list(samples["step"]) == [200, 150, 100, 50]
    assert samples["prompt"].iloc[0] == "The function"


def test_incidents_are_told(run: Path) -> None:
    append_events(
        run / "metrics.jsonl",
        [
            ("spike", 150, {"loss": 40.0, "median": 3.5}),
            ("nan", 160, {"loss": float("nan"), "message": "loss is not finite"}),
            ("nan", 170, {"what": "gradient", "in_a_row": 2}),
            ("nan", 180, {"what": None}),
            ("oom", 190, {}),
            ("resume", 200, {}),
        ],
    )
    incidents = opened(run).incidents()
    assert list(incidents["event"]) == ["resume", "oom", "nan", "nan", "nan", "spike"]
    assert list(incidents["what"]) == [
        "training went on from here; later rows of the session before do not count",
        "memory ran out and the micro-batch was halved",
        "a loss or gradient was not finite; the update was skipped",
        "the gradient was not finite; the update was skipped (2 steps in a row)",
        "loss is not finite",
        "the loss was 40, and the median of the last 50 steps 3.5",
    ]


def test_machine_over_time(run: Path) -> None:
    system = opened(run).system()
    assert set(system["name"]) == {"cpu_percent", "memory_rss_bytes", "memory_percent", "disk_free_bytes"}
    cpu = system[system["name"] == "cpu_percent"]
    assert list(cpu["x"]) == pytest.approx([step * SECONDS_PER_STEP for step in range(20, 201, 20)])


def test_time_left_is_the_pace_of_the_last_rows_times_the_steps_left(run: Path) -> None:
    write_status(run, RunStatus.of_this_process("running", 200))
    now = overview(run, RunMetrics(run), Parameters(values=(("steps", 1000),)))
    assert now.state == "running"
    assert now.planned_steps == 1000
    assert now.eta_s == pytest.approx(800 * SECONDS_PER_STEP)
    assert now.duration_s == pytest.approx(100)
    assert now.gain is not None
    assert now.gain < 0


def test_time_between_sessions_is_no_time_of_the_run(tmp_path: Path) -> None:
    noise, path = random.Random(0), tmp_path / "metrics.jsonl"
    for began, first in ((0, 1), (3600, 11), (7200, 21)):
        steps = [("train", step, train_fields(step, noise)) for step in range(first, first + 10)]
        begin = ("start" if first == 1 else "resume", first - 1, {})
        append_timed(path, [begin, *steps], STARTED + timedelta(seconds=began) - timedelta(seconds=first / 2))
    write_status(tmp_path, RunStatus.of_this_process("running", 30))
    now = overview(tmp_path, opened(tmp_path), Parameters(values=(("steps", 50),)))
    each = 10 * SECONDS_PER_STEP
    assert now.duration_s == pytest.approx(3 * each)
    places = opened(tmp_path).train(["loss"], x="time")
    assert list(places["x"]) == pytest.approx([step * SECONDS_PER_STEP for step in range(1, 31)])
    assert now.eta_s == pytest.approx(20 * SECONDS_PER_STEP)


@pytest.mark.parametrize("state", ["stopped", "failed", "dead"])
def test_a_run_promises_to_go_on_only_from_what_it_has(run: Path, state: Any) -> None:
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    dead = RunStatus("running", 2**22 + 1, host_name(), "2026-11-29T10:00:00.000+00:00", 200, "training")
    write_status(run, dead if state == "dead" else RunStatus.of_this_process(state, 200, ""))
    now = overview(run, RunMetrics(run), Parameters())
    assert now.state == state
    assert now.sentence.endswith("There is no checkpoint yet: --resume begins it again.")
    write_checkpoint(run, 100)
    assert overview(run, RunMetrics(run), Parameters()).sentence.endswith(
        "--resume continues from the last checkpoint."
    )


def test_overview_of_an_empty_folder(tmp_path: Path) -> None:
    now = overview(tmp_path, RunMetrics(tmp_path), Parameters())
    assert now.state == "unknown"
    assert (now.step, now.train.get("loss"), now.eta_s, now.duration_s, now.gain) == (None, None, None, None, None)
    assert len(now.notes) == 1


@pytest.mark.parametrize("x", ["step", "time", "tokens"])
def test_an_empty_file_gives_empty_frames(tmp_path: Path, x: str) -> None:
    (tmp_path / "metrics.jsonl").touch()
    metrics = opened(tmp_path)
    for frame in (
        metrics.train(("loss", "lr"), x=x),
        metrics.evaluation(x=x),
        metrics.depths(x=x),
        metrics.system(),
        metrics.samples(),
        metrics.incidents(),
    ):
        assert frame.empty
    assert metrics.latest("train") == {}
    assert metrics.notes() == ()
