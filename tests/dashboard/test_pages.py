"""What the pages say, without a browser: empty workspace, links anyone may write, files that vanish or are garbage."""

from __future__ import annotations

import json
import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from dashboard.app_pages.parts import STATE_CHIPS, STATE_COLOURS
from dashboard.queries.runs import STATES
from hrm_engine.store.files import write_json
from hrm_engine.store.manifest import file_entries
from hrm_engine.store.paths import Workspace
from hrm_engine.store.status import RunStatus, write_status
from tests.dashboard.reading import OpenApp, assert_clean, markup, texts, warnings
from tests.dashboard.run_folders import append_events, events, train_fields, write_checkpoint, write_run

TABS = ("Curves", "Evaluation", "Throughput", "Learning rate", "System", "Parameters", "Checkpoints", "Log")


@pytest.mark.parametrize("page", ["runs", "run"])
def test_empty_workspace_says_what_to_do(open_app: OpenApp, page: str) -> None:
    app = open_app(page)
    assert_clean(app)
    assert "make demo" in markup(app)


def test_all_runs_are_listed_with_state_and_losses(open_app: OpenApp, lab: Workspace) -> None:
    write_run(lab.root, "one", last=50)
    write_run(lab.root, "two", folder="artifacts/runs", kind="puzzle", state="failed")
    app = open_app()
    assert_clean(app)
    table = app.dataframe[0].value.set_index("name")
    assert sorted(table.index) == ["one", "two"]
    assert list(table.loc["two", "state"]) == ["failed"]
    assert table.loc["two", "kind"] == "puzzle"
    assert table.loc["one", "step"] == 50
    assert table.loc["one", "train_loss"] > 1
    assert "2 runs" in texts(app)


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ({"q": "puz"}, ["two"]),
        ({"q": "brains ONE"}, ["one"]),
        ({"state": "failed"}, ["two"]),
        ({"state": "<script>"}, ["one", "two"]),
        ({"state": "no-such-state", "q": ""}, ["one", "two"]),
    ],
)
def test_filters_come_from_the_link(open_app: OpenApp, lab: Workspace, link: dict[str, str], shown: list[str]) -> None:
    write_run(lab.root, "one", last=20)
    write_run(lab.root, "two", last=20, folder="artifacts/runs", kind="puzzle", state="failed")
    app = open_app("runs", **link)
    assert_clean(app)
    assert sorted(app.dataframe[0].value["name"]) == shown


def test_a_filter_that_nothing_matches_says_so(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("runs", q="no such run")
    assert_clean(app)
    assert "No run matches" in markup(app)
    assert "0 of 1 run" in texts(app)


def test_run_page_shows_the_numbers_of_the_run(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="brains/actv1/default")
    assert_clean(app)
    shown = {metric.label: metric for metric in app.metric}
    assert shown["Step"].value == "200"
    assert shown["Step"].delta == "of 1,000"
    assert shown["Unigram model"].value == "6.400"
    assert shown["Duration"].value == "1 min 40 s"
    assert float(shown["Validation loss"].delta) < 0
    assert "default" in texts(app)


def test_a_diverged_run_is_amber_and_names_its_best_evaluation(open_app: OpenApp, run_dir: Path) -> None:
    told = "validation is worse than at the start: loss 73 now, loss 9.5 then"
    write_status(run_dir, RunStatus.of_this_process("diverged", 300, told))
    worse = {"loss": 73.0, "first_loss": 9.5, "message": told}
    append_events(run_dir / "metrics.jsonl", [("eval", 300, {"loss": 73.0}), ("diverged", 300, worse)])
    app = open_app("run", run="brains/actv1/default")
    assert_clean(app)
    assert ":orange-badge[diverged]" in markup(app)
    assert told in texts(app)
    assert "at step 200. The last one is of step 300." in texts(app)
    assert STATE_CHIPS.keys() == STATE_COLOURS.keys() == set(STATES)
    table = open_app("runs").dataframe[0].value.iloc[0]
    assert (list(table["state"]), table["eval_loss"], table["best_step"]) == (["diverged"], 73.0, 200)


def test_a_run_without_a_link_is_the_latest_and_goes_into_the_link(open_app: OpenApp, lab: Workspace) -> None:
    write_run(lab.root, "old", last=20, ago=timedelta(days=2))
    write_run(lab.root, "new", last=20)
    app = open_app("run")
    assert_clean(app)
    assert app.query_params["run"] == "brains/actv1/new"


HEADINGS = {
    "Curves": [],
    "Evaluation": [
        "Loss by segment",
        "Token accuracy by segment",
        "What further segments change",
        "What further segments change",
        "Where each token halts by itself: loss",
        "Where each token halts by itself: depth",
        "Samples",
    ],
    "Throughput": ["Tokens per second", "Time of a step", "Segments per token"],
    "Learning rate": ["Learning rate", "Gradient norm"],
    "System": ["Processor and memory", "Memory of the training", "Free disk space"],
}


@pytest.mark.parametrize("tab", TABS)
def test_every_section_of_a_full_run(open_app: OpenApp, run_dir: Path, tab: str) -> None:
    write_checkpoint(run_dir, 100)
    app = open_app("run", run="default", tab=tab)
    assert_clean(app)
    assert app.get_by_key("tab").value == tab
    figures = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    assert all(any(trace.get("x") for trace in figure["data"]) for figure in figures), "a figure without a point"
    headings = HEADINGS.get(tab, [])
    assert sorted(heading.value for heading in app.subheader) == sorted(headings)
    assert len(figures) == (1 if tab == "Curves" else len([heading for heading in headings if heading != "Samples"]))
    if tab == "Curves":
        assert figures[0]["layout"]["yaxis"]["title"]["text"] == "loss (nats/token)"
        assert {"training", "validation"} <= {trace.get("name") for trace in figures[0]["data"]}
    elif tab == "Evaluation":
        assert "returns the value of the *200*th <b>item</b>." in texts(app)
    elif tab == "Parameters":
        values = app.dataframe[0].value.set_index("name")["value"]
        assert {name: str(values[name]) for name in ("hidden_size", "steps")} == {"hidden_size": "256", "steps": "1000"}
    elif tab == "Checkpoints":
        assert app.dataframe[0].value[["step", "validity"]].to_numpy().tolist() == [[100, "valid"]]
    elif tab == "Log":
        assert "step 1: loss 4.000" in texts(app)
        assert "step 200: loss 3.005" in texts(app)


@pytest.mark.parametrize("tab", TABS)
def test_every_section_of_a_run_that_has_just_begun(open_app: OpenApp, lab: Workspace, tab: str) -> None:
    run = lab.brains / "young"
    run.mkdir(parents=True)
    write_json(run / "training_args.json", {})
    app = open_app("run", run="young", tab=tab)
    assert_clean(app)
    assert "There is no metrics.jsonl in the run folder yet" in warnings(app)


@pytest.mark.parametrize(
    "wanted",
    [
        "../../etc",
        "/etc",
        "..\\..",
        "%252e%252e%252f",
        "x" * 5000,
        "<script>alert(1)</script>",
        "a\0b",
        "brains",
        "*x*",
    ],
)
def test_a_link_to_no_run_gets_a_message(open_app: OpenApp, run_dir: Path, wanted: str) -> None:
    app = open_app("run", run=wanted)
    assert_clean(app)
    assert "not in the workspace" in warnings(app)
    assert not app.metric
    assert wanted[:300] in texts(app)
    assert wanted not in markup(app)


@pytest.mark.parametrize("value", ["", "<script>", "../x", "NaN", "1e999", "-5", "Log'; DROP TABLE lines", "x" * 3000])
def test_bad_values_in_the_link_fall_back_to_the_defaults(open_app: OpenApp, run_dir: Path, value: str) -> None:
    app = open_app("run", run="default", tab=value, x=value, smoothing=value, log=value)
    assert_clean(app)
    assert app.get_by_key("tab").value in (None, "Curves")
    assert app.get_by_key("smoothing").value == 5
    assert app.get_by_key("log").value is False
    assert app.get("plotly_chart")


def test_good_values_in_the_link_are_used(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default", x="Wall time", smoothing="50", log="true")
    assert_clean(app)
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert "wall time" in figure["layout"]["xaxis"]["title"]["text"]
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert any("50 steps" in trace["name"] for trace in figure["data"])


def test_a_run_deleted_while_it_is_viewed_gets_a_message(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default")
    assert_clean(app)
    shutil.rmtree(run_dir)
    write_run(run_dir.parents[3], "other", last=20)
    app.run()
    assert_clean(app)
    assert "not in the workspace (any more)" in warnings(app)


def test_metrics_replaced_while_viewed_are_read_again(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default")
    metrics = run_dir / "metrics.jsonl"
    metrics.unlink()
    append_events(metrics, events(1, 7))
    app.run()
    assert_clean(app)
    assert "replaced or cut" in warnings(app)
    assert "7 rows" in texts(app)


def test_metrics_deleted_while_viewed_keep_their_curve(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default")
    (run_dir / "metrics.jsonl").unlink()
    app.run()
    assert_clean(app)
    assert "not there any more" in warnings(app)
    assert "200 rows" in texts(app)


@pytest.mark.parametrize("tab", TABS[:5])
def test_garbage_between_rows_is_counted_and_the_rest_shown(open_app: OpenApp, run_dir: Path, tab: str) -> None:
    noise = random.Random(1)
    whole = (run_dir / "metrics.jsonl").read_bytes()
    junk = [noise.randbytes(50).replace(b"\n", b""), b"NaN", b"[1,2]", b'"text"', b'{"event":"train"', b"x" * 10_000]
    drift: list[dict[str, object]] = [
        {"event": "train", "step": "7", "loss": "text"},
        {"event": "train", "step": None, "loss": 1},
        {"event": "train", "step": 10**400, "loss": 10**400, "ts": 5},
        {"event": "eval", "step": 60, "loss": [1], "loss_by_segment": "x", "token_accuracy_by_segment": [None, {}]},
        {"event": "sample", "step": 60, "text": 5},
        {"event": "system", "ts": "not a time", "cpu_percent": {}},
        {"event": "spike"},
        {"event": {"a": 1}},
    ]
    rows = [json.dumps(row).encode() for row in drift]
    torn = b'{"ts":"2026-01-01T00:00:00","event":"train","step":201,"lo'
    (run_dir / "metrics.jsonl").write_bytes(b"\xef\xbb\xbf" + whole + b"\n".join([*junk, *rows, torn]))
    app = open_app("run", run="default", tab=tab)
    assert_clean(app)
    assert f"{len(junk)} lines of metrics.jsonl could not be read" in warnings(app)


def test_names_and_samples_are_never_markup(open_app: OpenApp, lab: Workspace) -> None:
    name = "b <img src=x onerror=alert(1)> **bold** :red[x] $y$ '\""
    run = write_run(lab.root, name, last=50, state="failed", message="<b>why</b> *it* failed")
    append_events(run / "metrics.jsonl", [("oom", 50, {"message": "<i>hot</i>"})])
    for page, tab in (("runs", ""), ("run", "Curves"), ("run", "Evaluation"), ("run", "Parameters"), ("run", "Log")):
        app = open_app(page, run=f"brains/actv1/{name}", tab=tab)
        assert_clean(app)
        for hostile in ("<img", "**bold**", "<b>", "*50*", "<i>"):
            assert hostile not in markup(app)
        if page == "run":
            assert name in texts(app)
            assert "<b>why</b> *it* failed" in texts(app)


def test_sample_is_shown_word_for_word(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default", tab="Evaluation")
    assert "returns the value of the *200*th <b>item</b>." in texts(app)


def test_damaged_checkpoint_is_named(open_app: OpenApp, run_dir: Path) -> None:
    write_checkpoint(run_dir, 100)
    bad = write_checkpoint(run_dir, 200)
    (bad / "state.safetensors").write_bytes(b"cut")
    app = open_app("run", run="default", tab="Checkpoints")
    assert_clean(app)
    table = app.dataframe[0].value.set_index("step")
    assert table.loc[100, "validity"] == "valid"
    assert "state.safetensors is cut off" in table.loc[200, "validity"]
    assert "Damaged: 1 of 2 checkpoints" in warnings(app)


def test_parameters_can_be_searched(open_app: OpenApp, run_dir: Path) -> None:
    app = open_app("run", run="default", tab="Parameters")
    app.text_input[0].input("optim lr").run()
    assert_clean(app)
    found = app.dataframe[0].value
    assert set(found["name"]) == {"lr", "lr_scheduler"}
    assert "2 of" in texts(app)


@pytest.mark.parametrize("content", ["{", "[]", "\xff", ""])
def test_damaged_parameters_are_reported_and_the_rest_shown(open_app: OpenApp, run_dir: Path, content: str) -> None:
    (run_dir / "training_args.json").write_bytes(content.encode("latin-1"))
    app = open_app("run", run="default", tab="Parameters")
    assert not app.exception
    assert "cannot be read" in app.error[0].value
    assert "training_args.json" in texts(app)
    assert {metric.label: metric.value for metric in app.metric}["Step"] == "200"


def test_interrupted_save_of_the_bundle_is_reported(open_app: OpenApp, run_dir: Path) -> None:
    (run_dir / "config.json").write_text("{}")
    entries = file_entries(run_dir, ["config.json"])
    write_json(run_dir / "metadata.json", {"schema_version": 1, "kind": "actv1", "files": entries})
    assert "bundle" not in warnings(open_app("run", run="default"))
    (run_dir / "config.json").write_text('{"a": 1}')
    assert "The bundle is not complete" in warnings(open_app("run", run="default"))


def test_a_running_run_says_how_long_it_still_takes(open_app: OpenApp, lab: Workspace) -> None:
    run = write_run(lab.root, "busy", last=100, planned=300, state="running", message="training")
    append_events(run / "metrics.jsonl", [("train", 101, train_fields(101, random.Random(0)))])
    app = open_app("run", run="busy")
    assert_clean(app)
    assert "Time left" in {metric.label for metric in app.metric}
    assert "training" in texts(app)
    assert app.get_by_key("live").value is True
    assert open_app("run", run="busy", live="false").get_by_key("live").value is False
