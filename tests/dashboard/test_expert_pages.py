"""The pages Experts and Goals without a browser: what they show, change and refuse; the files are looked at."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace
from tests.dashboard.registries import HOSTILE, add_expert, attach, on_disk, train_expert, write_registry
from tests.dashboard.run_folders import append_events, write_moe_run, write_run
from tests.dashboard.test_pages import assert_clean, markup, texts, warnings

OpenApp = Callable[..., AppTest]


@pytest.fixture
def goals(lab: Workspace) -> Goals:
    return write_registry(lab)


def press(app: AppTest, label: str, at: int = 0) -> AppTest:
    """Click the button of that name."""
    app = [found for found in app.button if found.label == label][at].click().run()
    assert_clean(app)
    return app


def confirm(app: AppTest) -> AppTest:
    """Click what the open dialog asks for."""
    app = app.get_by_key("dialog_yes").click().run()
    assert_clean(app)
    return app


def labels(app: AppTest) -> set[str]:
    return {found.label for found in app.button}


def toasts(app: AppTest) -> str:
    return "\n".join(str(toast.value) for toast in app.toast)


def link_of(app: AppTest, name: str) -> str | None:
    if name not in app.query_params:
        return None
    found = app.query_params[name]
    return found[0] if isinstance(found, list) else found


# Experts: what is shown


def test_a_workspace_without_experts_says_what_to_do(open_app: OpenApp, lab: Workspace) -> None:
    app = open_app("experts")
    assert_clean(app)
    assert "lab train actv1 --expert-id" in markup(app)
    assert labels(app) == {"New card"}
    assert not lab.expert_registry.exists()


def test_counts_table_and_tree(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    attach(lab, "docs")
    app = open_app("experts")
    assert_clean(app)
    assert {metric.label: metric.value for metric in app.metric} == {
        "Experts": "5",
        "Active": "4",
        "Frozen": "1",
        "Attached": "1",
    }
    table = app.dataframe[0].value.set_index("expert_id")
    assert list(table.loc["docs", "state"]) == ["active", "attached"]
    assert list(table.loc["typing", "state"]) == ["inactive"]
    assert list(table.loc["poems", "state"]) == ["active", "frozen"]
    tree = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert {trace["name"] for trace in tree["data"] if "name" in trace} == {"active", "inactive"}
    assert not any(label in labels(app) for label in ("Freeze", "Delete"))


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ({"q": "type"}, ["generics", "typing"]),
        ({"category": "literature"}, ["poems"]),
        ({"state": "frozen"}, ["poems"]),
        ({"category": "<script>", "state": "nonsense"}, ["docs", "generics", "notes", "poems", "typing"]),
    ],
)
def test_filters_come_from_the_link(open_app: OpenApp, goals: Goals, link: dict[str, str], shown: list[str]) -> None:
    app = open_app("experts", **link)
    assert_clean(app)
    assert sorted(app.dataframe[0].value["expert_id"]) == shown


def test_a_category_is_chosen_and_taken_away(open_app: OpenApp, goals: Goals) -> None:
    app = open_app("experts")
    app.get_by_key("category_choice").set_value("literature").run()
    assert_clean(app)
    assert link_of(app, "category") == "literature"
    assert list(app.dataframe[0].value["expert_id"]) == ["poems"]
    app.get_by_key("category_choice").set_value(None).run()
    assert link_of(app, "category") is None
    assert len(app.dataframe[0].value) == 5


def test_a_filter_that_nothing_matches_says_so(open_app: OpenApp, goals: Goals) -> None:
    app = open_app("experts", q="no such expert")
    assert_clean(app)
    assert "No expert matches" in markup(app)
    assert "0 of 5 experts" in texts(app)


def test_the_card_of_an_expert(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    attach(lab, "docs")
    goals.registry.update("docs", performance_metrics={"loss_with": 4.2, "loss_without": 4.9})
    train_expert(lab, "docs")
    app = open_app("experts", expert="docs")
    assert_clean(app)
    shown = {metric.label: metric for metric in app.metric}
    assert shown["Held-out loss"].value == "4.200"
    assert shown["Held-out loss"].delta == "-0.700"
    assert shown["Without it"].value == "4.900"
    assert shown["Activations"].value == "1,000"
    said = texts(app)
    assert "Explain errors" in said
    assert "goal 2 · inactive" in said
    assert "brains/actv1/brain" in said
    fields = app.dataframe[-1].value.set_index("field")["value"]
    assert fields["child_expert_ids"] == "typing"
    assert fields["performance_metrics.loss_with"] == "4.2"
    titles = [json.loads(chart.proto.spec)["layout"].get("yaxis", {}) for chart in app.get("plotly_chart")]
    assert "held-out loss (nats/token)" in json.dumps(titles)
    curves = [trace["name"] for trace in json.loads(app.get("plotly_chart")[1].proto.spec)["data"]]
    assert curves == ["with the expert", "without"]


def test_a_folder_that_is_a_link_is_not_followed(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    (lab.root / "elsewhere").mkdir()
    (lab.experts / "docs").symlink_to(lab.root / "elsewhere")
    app = open_app("experts", expert="docs")
    assert_clean(app)
    assert "is a link" in texts(app)


def test_a_card_without_weights_says_how_to_train_it(open_app: OpenApp, goals: Goals) -> None:
    app = open_app("experts", expert="notes")
    assert_clean(app)
    assert "lab train actv1 --expert-id notes" in texts(app)
    assert "It serves no goal" in texts(app)


@pytest.mark.parametrize("wanted", ["gone", "../../etc", "<script>alert(1)</script>", "*x*", "a\0b", "x" * 5000])
def test_a_link_to_no_expert_gets_a_sentence(open_app: OpenApp, goals: Goals, wanted: str) -> None:
    app = open_app("experts", expert=wanted)
    assert_clean(app)
    assert "There is no expert" in texts(app)
    assert wanted not in markup(app)
    assert "Freeze" not in labels(app)


def test_names_and_goals_are_never_markup(open_app: OpenApp, lab: Workspace) -> None:
    add_expert(lab, "x", name=HOSTILE, description=HOSTILE, category=HOSTILE)
    Goals(lab).add(HOSTILE, expert_id="x")
    attach(lab, "x", name="b <b>run</b> *it*")
    for app in (open_app("experts", expert="x"), open_app("goals", goal="1")):
        assert_clean(app)
        assert HOSTILE in texts(app)
        for hostile in ("<img", "**b**", "<b>", ":red"):
            assert hostile not in markup(app)
    for key in ("activate", "parent", "link", "delete"):
        app = open_app("experts", expert="x")
        app.get_by_key(key).click().run()
        assert_clean(app)
        assert "<img" not in markup(app)


@pytest.mark.parametrize("damage", ["cut", "newer", "cycle", "goals"])
@pytest.mark.parametrize("page", ["experts", "goals"])
def test_a_damaged_store_is_a_sentence_and_nothing_can_be_done(
    open_app: OpenApp, lab: Workspace, goals: Goals, damage: str, page: str
) -> None:
    path = lab.goals if damage == "goals" else lab.expert_registry
    content = json.loads(lab.expert_registry.read_text())
    if damage == "newer":
        content["version"] = 99
    if damage == "cycle":
        content["experts"][0]["parent_expert_id"] = "generics"
    spoilt = json.dumps(content).encode()
    path.write_bytes(spoilt[:50] if damage in ("cut", "goals") else spoilt)
    before = path.read_bytes()
    app = open_app(page, expert="docs", goal="1")
    assert_clean(app)
    assert "nothing can be changed" in texts(app)
    assert path.name in texts(app)
    assert not app.button
    assert not app.dataframe
    assert path.read_bytes() == before


# Experts: what is changed


def test_freezing_and_unfreezing(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="docs"), "Freeze")
    assert on_disk(lab, "docs")["is_frozen"] is True
    assert "frozen" in toasts(app)
    assert {metric.label: metric.value for metric in app.metric}["Frozen"] == "2"
    press(app, "Unfreeze")
    assert on_disk(lab, "docs")["is_frozen"] is False


def test_what_changes_the_routing_is_asked_first(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="docs"), "Deactivate")
    assert on_disk(lab, "docs")["is_active"] is True
    assert "No token will be routed to docs" in texts(app)
    app = app.get_by_key("dialog_no").click().run()
    assert_clean(app)
    assert on_disk(lab, "docs")["is_active"] is True
    assert "No token" not in texts(app)
    app = confirm(press(app, "Deactivate"))
    assert on_disk(lab, "docs")["is_active"] is False
    confirm(press(app, "Activate"))
    assert on_disk(lab, "docs")["is_active"] is True


def test_a_card_is_made(open_app: OpenApp, lab: Workspace) -> None:
    app = press(open_app("experts"), "New card")
    app.get_by_key("new_id").input("first")
    app.get_by_key("new_name").input("The first")
    app.get_by_key("new_category").input("code").run()
    app = confirm(app)
    card = on_disk(lab, "first")
    assert (card["name"], card["category"], card["checkpoint_path"]) == ("The first", "code", None)
    assert link_of(app, "expert") == "first"
    assert "Freeze" in labels(app)


@pytest.mark.parametrize(
    ("expert_id", "message"),
    [("", "is not allowed"), ("Bad Id", "is not allowed"), ("../x", "is not allowed"), ("docs", "already")],
)
def test_a_card_that_cannot_be_made_says_why(
    open_app: OpenApp, lab: Workspace, goals: Goals, expert_id: str, message: str
) -> None:
    before = lab.expert_registry.read_bytes()
    app = press(open_app("experts"), "New card")
    app.get_by_key("new_id").input(expert_id).run()
    app = confirm(app)
    assert message in texts(app)
    assert app.get_by_key("dialog_yes").label == "Create"
    assert lab.expert_registry.read_bytes() == before


def test_setting_a_parent(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="docs"), "Set parent")
    box = app.get_by_key("parent_of docs")
    assert box.options == ["none", "poems", "notes"]
    box.set_value("poems").run()
    app = confirm(app)
    assert on_disk(lab, "docs")["parent_expert_id"] == "poems"
    app = press(app, "Set parent")
    app.get_by_key("parent_of docs").set_value("").run()
    confirm(app)
    assert on_disk(lab, "docs")["parent_expert_id"] is None


def test_a_cycle_that_somebody_else_prepared_is_refused(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="docs"), "Set parent")
    app.get_by_key("parent_of docs").set_value("poems").run()
    goals.registry.set_parent("poems", "docs")
    app = confirm(app)
    assert on_disk(lab, "docs")["parent_expert_id"] is None


def test_deleting_an_expert(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    folder = train_expert(lab, "notes")
    app = press(open_app("experts", expert="notes"), "Delete")
    assert "artifacts/experts/notes" in texts(app)
    assert folder.exists()
    app = confirm(app)
    assert not folder.exists()
    assert "notes" not in ExpertRegistry(lab).read()
    assert link_of(app, "expert") is None
    assert "`notes` is deleted" in toasts(app)


def test_deleting_a_parent_asks_what_becomes_of_its_children(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="typing"), "Delete")
    assert "Below it hang generics" in texts(app)
    app = confirm(app)
    assert "has children" in texts(app)
    assert "typing" in ExpertRegistry(lab).read()
    app.get_by_key("reparent").check().run()
    confirm(app)
    assert on_disk(lab, "generics")["parent_expert_id"] == "docs"


def test_what_may_not_be_deleted_says_why(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    attach(lab, "notes")
    app = confirm(press(open_app("experts", expert="notes"), "Delete"))
    assert "is attached to artifacts/brains/actv1/brain" in texts(app)
    with FolderLock(train_expert(lab, "poems")):
        app = confirm(press(open_app("experts", expert="poems"), "Delete"))
    assert "poems" in texts(app)
    assert {"notes", "poems"} <= {card.expert_id for card in ExpertRegistry(lab).cards()}


def test_an_expert_that_vanished_meanwhile(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = open_app("experts", expert="notes")
    goals.registry.delete("notes")
    app = app.get_by_key("freeze").click().run()
    assert_clean(app)
    assert "no expert 'notes'" in texts(app)
    assert "There is no expert 'notes' (any more)" in texts(app)


def test_linking_goals_to_an_expert(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = press(open_app("experts", expert="notes"), "Link goal")
    app.get_by_key("goal_for notes").set_value(1).run()
    app = confirm(app)
    assert goals.get_expert(1) == ["docs", "notes"]
    app = press(app, "Link goal")
    app.get_by_key("new_goal_for").input("Something new").run()
    app = confirm(app)
    assert [goal.text for goal in goals.list_for_expert("notes")] == ["Explain errors", "Something new"]
    assert on_disk(lab, "notes")["goals"] == [{"id": 1, "text": "Explain errors"}, {"id": 3, "text": "Something new"}]
    app = press(app, "Unlink")
    assert goals.get_expert(1) == ["docs", "notes"]
    confirm(app)
    assert goals.get_expert(1) == ["docs"]


# Goals


def test_a_workspace_without_goals_says_what_to_do(open_app: OpenApp, lab: Workspace) -> None:
    app = open_app("goals")
    assert_clean(app)
    assert "lab goals add" in markup(app)
    app = press(app, "New goal")
    app.get_by_key("goal_text").input("  First goal ").run()
    app = confirm(app)
    assert [(goal.id, goal.text) for goal in Goals(lab).list_goals()] == [(1, "First goal")]
    assert link_of(app, "goal") == "1"
    assert "steers nothing" in texts(app)


def test_the_table_of_goals(open_app: OpenApp, goals: Goals) -> None:
    app = open_app("goals")
    assert_clean(app)
    table = app.dataframe[0].value.set_index("id")
    assert table.loc[1, "text"] == "Explain errors"
    assert list(table.loc[2, "state"]) == ["inactive"]
    assert list(table.loc[1, "experts"]) == ["docs"]
    assert "2 goals · 1 active" in texts(app)
    assert list(open_app("goals", q="WORDS docs").dataframe[0].value["id"]) == [2]
    assert "No goal matches" in markup(open_app("goals", q="nothing of it"))


def test_a_goal_is_added_with_an_expert(open_app: OpenApp, goals: Goals) -> None:
    app = press(open_app("goals"), "New goal")
    app = confirm(app)
    assert "must have 1 to" in texts(app)
    app.get_by_key("goal_text").input("With one")
    app.get_by_key("goal_expert").set_value("poems").run()
    confirm(app)
    assert goals.get_expert(3) == ["poems"]


def test_activating_and_removing_a_goal(open_app: OpenApp, lab: Workspace, goals: Goals) -> None:
    app = confirm(press(open_app("goals", goal="2"), "Activate"))
    assert goals.get(2).active
    app = confirm(press(app, "Deactivate"))
    assert not goals.get(2).active
    app = press(app, "Remove")
    assert "Write in plain words" in texts(app)
    assert len(goals.list_goals(active_only=False)) == 2
    app = confirm(app)
    assert [goal.id for goal in goals.list_goals(active_only=False)] == [1]
    assert link_of(app, "goal") is None
    assert [goal["id"] for goal in on_disk(lab, "docs")["goals"]] == [1]


def test_linking_experts_to_a_goal(open_app: OpenApp, goals: Goals) -> None:
    app = press(open_app("goals", goal="1"), "Link expert")
    box = app.get_by_key("expert_for 1")
    assert "docs" not in box.options
    box.set_value("notes").run()
    app = confirm(app)
    assert goals.get_expert(1) == ["docs", "notes"]
    confirm(press(app, "Unlink", at=1))
    assert goals.get_expert(1) == ["docs"]


@pytest.mark.parametrize("wanted", ["9", "-1", "x", "1e3", "9" * 50, "<b>", "1 OR 1=1"])
def test_a_link_to_no_goal_gets_a_sentence(open_app: OpenApp, goals: Goals, wanted: str) -> None:
    app = open_app("goals", goal=wanted)
    assert_clean(app)
    assert "There is no goal" in texts(app)
    assert "Remove" not in labels(app)


def test_goals_locked_by_somebody_are_a_sentence(
    open_app: OpenApp, lab: Workspace, goals: Goals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_engine.store.goal_tables.BUSY_TIMEOUT_S", 0.05)
    app = press(open_app("goals", goal="1"), "Deactivate")
    holder = sqlite3.connect(lab.goals, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    app = app.get_by_key("dialog_yes").click().run()
    holder.close()
    assert_clean(app)
    assert "has been locked by another process" in texts(app)
    assert goals.get(1).active


# Routing


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
    assert "not told yet" in markup(app)
    assert set(figures(app)) == {"loss"}
    append_events(run / "metrics.jsonl", [("expert_usage", 19, {"layer": "<b>H</b>", "token_counts": [3, 1]})])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"junk\n")
    app.run()
    assert_clean(app)
    assert "1 line of metrics.jsonl could not be read" in warnings(app)
    assert figures(app)["layer"]["data"][0]["y"] == ["&lt;b&gt;H&lt;/b&gt;"]  # type: ignore[index]
