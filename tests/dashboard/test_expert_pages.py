"""The page Experts without a browser: what it shows, of any registry."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import labels, link_of
from tests.dashboard.reading import assert_clean, markup, texts
from tests.dashboard.registries import HOSTILE, add_expert, attach, train_expert, write_registry

OpenApp = Callable[..., AppTest]


@pytest.fixture
def goals(lab: Workspace) -> Goals:
    return write_registry(lab)


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
    for kind in ("activate", "parent", "link", "delete"):
        app = open_app("experts", expert="x")
        app.get_by_key(f"{kind} x").click().run()
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
