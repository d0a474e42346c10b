"""The routing of runs on the page Experts, without a browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from hrm_engine.store.files import write_json
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import link_of
from tests.dashboard.reading import assert_clean, markup, texts, warnings
from tests.dashboard.run_folders import append_events, write_moe_run, write_run

OpenApp = Callable[..., AppTest]


def figures(app: AppTest) -> dict[str, dict[str, object]]:
    """Figures by the title of their vertical axis."""
    found = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    return {figure["layout"]["yaxis"]["title"]["text"]: figure for figure in found}


def test_without_runs_of_experts_it_says_what_to_do(open_app: OpenApp, lab: Workspace) -> None:
    write_run(lab.root, "dense", last=10)
    app = open_app("experts", view="Routing")
    assert_clean(app)
    assert "--no-moe" in markup(app)


def test_the_routing_of_a_run(open_app: OpenApp, lab: Workspace) -> None:
    write_moe_run(lab.root, "moe", bias_rate=0.5)
    app = open_app("experts", view="Routing", run="moe")
    assert_clean(app)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Layers with experts"] == "4"
    assert shown["Experts of a layer"] == "4 to 8"
    assert shown["Step"] == "400"
    drawn = figures(app)
    assert set(drawn) == {
        "layer",
        "share of tokens",
        "entropy, share of the maximum",
        "share of assignments",
        "loss",
        "bias rate",
    }
    assert [trace["name"] for trace in drawn["loss"]["data"]] == ["load balance (1: even)", "router z"]  # type: ignore[attr-defined]
    assert drawn["layer"]["data"][0]["y"] == ["H.0", "H.1", "L.0", "L.1"]  # type: ignore[index]


def test_a_run_that_wrote_routing_comes_before_one_that_wrote_none(open_app: OpenApp, lab: Workspace) -> None:
    write_moe_run(lab.root, "moe")
    none = write_moe_run(lab.root, "none")
    metrics = none / "metrics.jsonl"
    lines = [line for line in metrics.read_text(encoding="utf-8").splitlines() if "expert_usage" not in line]
    metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.utime(metrics, (time.time() + 60,) * 2)  # the newest
    app = open_app("experts", view="Routing")
    assert_clean(app)
    assert app.selectbox(key="routing_run").value == "brains/actv1/moe"
    app = open_app("experts", view="Routing", run="none")
    assert "**No routing data.**" in markup(app)
    assert "every 100 steps and when a run finishes" in markup(app)


def test_attached_experts_have_their_names(open_app: OpenApp, lab: Workspace) -> None:
    run = write_moe_run(lab.root, "moe", layers={"H.0": 4, "H.1": 5})
    entries = [{"expert_id": "poems", "layer": "H.1", "column": 4}, {"expert_id": "odd", "layer": "H.0"}]
    write_json(run / "metadata.json", {"schema_version": 1, "kind": "actv1", "files": {}, "experts": entries})
    app = open_app("experts", view="Routing", run="moe", layer="H.1")
    assert_clean(app)
    assert "poems is expert 4 of H.1" in texts(app)
    drawn = figures(app)
    names = [trace["name"] for trace in drawn["share of tokens"]["data"]]  # type: ignore[attr-defined]
    assert names == ["expert 0", "expert 1", "expert 2", "expert 3", "poems", "even"]
    notes = drawn["layer"]["data"][0]["customdata"]  # type: ignore[index]
    assert [note.endswith("<br>poems") for note in notes[1]] == [False] * 4 + [True]


def test_a_run_without_goals_says_so(open_app: OpenApp, lab: Workspace) -> None:
    write_moe_run(lab.root, "moe", bias_rate=0.0)
    app = open_app("experts", view="Routing", run="moe")
    assert "No goal steers this run" in texts(app)
    assert "bias rate" not in figures(app)


def test_step_and_layer_stand_in_the_link(open_app: OpenApp, lab: Workspace) -> None:
    write_moe_run(lab.root, "moe")
    app = open_app("experts", view="Routing", run="moe", step="20", layer="L.1")
    assert_clean(app)
    slider = app.get_by_key("usage_step")
    assert slider.value == 20
    early = figures(app)
    assert len(early["share of tokens"]["data"]) == 5  # type: ignore[arg-type]  # four experts and the even share
    slider.set_value(400).run()
    assert_clean(app)
    assert link_of(app, "step") is None
    assert figures(app)["layer"] != early["layer"]
    app.get_by_key("usage_step").set_value(40).run()
    assert link_of(app, "step") == "40"
    app.get_by_key("usage_layer").set_value("H.1").run()
    assert link_of(app, "layer") == "H.1"


@pytest.mark.parametrize("value", ["", "<b>", "-5", "21", "1e999", "x" * 3000])
def test_bad_values_in_the_link_fall_back(open_app: OpenApp, lab: Workspace, value: str) -> None:
    write_moe_run(lab.root, "moe")
    app = open_app("experts", view="Routing", step=value, layer=value)
    assert_clean(app)
    assert app.get_by_key("usage_step").value == 400
    assert app.get_by_key("usage_layer").value == "H.0"


def test_a_link_to_a_dense_run_gets_a_sentence(open_app: OpenApp, lab: Workspace) -> None:
    write_moe_run(lab.root, "moe")
    write_run(lab.root, "dense", last=10)
    app = open_app("experts", view="Routing", run="brains/actv1/dense")
    assert_clean(app)
    assert "is no run with experts" in texts(app)
    assert not app.get("plotly_chart")
    app.get_by_key("routing_run").set_value("brains/actv1/moe").run()
    assert_clean(app)
    assert app.get("plotly_chart")


def test_a_run_that_has_just_begun(open_app: OpenApp, lab: Workspace) -> None:
    run = write_moe_run(lab.root, "moe", last=19)
    app = open_app("experts", view="Routing")
    assert_clean(app)
    assert "No routing data" in markup(app)
    assert set(figures(app)) == {"loss"}
    append_events(run / "metrics.jsonl", [("expert_usage", 19, {"layer": "<b>H</b>", "token_counts": [3, 1]})])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"junk\n")
    app.run()
    assert_clean(app)
    assert "1 line of metrics.jsonl could not be read" in warnings(app)
    assert figures(app)["layer"]["data"][0]["y"] == ["&lt;b&gt;H&lt;/b&gt;"]  # type: ignore[index]
