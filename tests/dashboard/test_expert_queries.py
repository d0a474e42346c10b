"""The registry as tables, where experts stand, and goals with their experts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.charts import experts as charts
from dashboard.queries.attachments import by_expert
from dashboard.queries.experts import ExpertTable, card_fields, goal_frame, losses, matching, served_goals
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.dashboard.registries import HOSTILE, add_expert, attach, write_registry

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.fixture
def goals(lab: Workspace) -> Goals:
    return write_registry(lab)


@pytest.fixture
def experts(goals: Goals) -> ExpertTable:
    return ExpertTable(goals.registry.read().cards)


def found(experts: ExpertTable, **asked: object) -> list[str]:
    return experts.find(**asked)["expert_id"].tolist()  # type: ignore[arg-type]


def test_counts(experts: ExpertTable) -> None:
    counts = experts.counts(["docs", "not in the registry"])
    assert counts == {"active": 4, "inactive": 1, "frozen": 1, "attached": 1}
    assert experts.categories() == ["code", "literature"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["docs", "typing", "generics", "poems", "notes"]),
        ({"search": "TYPE"}, ["typing", "generics"]),
        ({"search": "by short"}, ["poems"]),
        ({"search": "%"}, []),
        ({"search": "'; DROP TABLE experts"}, []),
        ({"category": "code"}, ["docs", "typing", "generics"]),
        ({"category": "none"}, []),
        ({"states": ["inactive"]}, ["typing"]),
        ({"states": ["active", "frozen"]}, ["poems"]),
        ({"states": ["active", "inactive"]}, []),
        ({"states": ["attached"], "attached": ["notes", "gone"]}, ["notes"]),
        ({"search": "t", "category": "code", "states": ["active"]}, ["docs", "generics"]),
    ],
)
def test_filters(experts: ExpertTable, asked: dict[str, object], expected: list[str]) -> None:
    assert found(experts, **asked) == expected


def test_a_row_has_what_the_card_has(experts: ExpertTable) -> None:
    rows = experts.find(attached=["docs"]).set_index("expert_id")
    assert rows.loc["docs", "num_goals"] == 2
    assert rows.loc["docs", "num_children"] == 1
    assert rows.loc["docs", "total_activations"] == 1000
    assert rows.loc["docs", "state"] == ["active", "attached"]
    assert not bool(rows.loc["docs", "has_weights"])
    assert rows.loc["typing", "parent_expert_id"] == "docs"
    assert rows["last_trained"].isna().all()


def test_the_tree_has_children_below_their_parents(experts: ExpertTable) -> None:
    tree = experts.tree()
    assert list(zip(tree["expert_id"], tree["depth"], strict=True)) == [("docs", 0), ("typing", 1), ("generics", 2)]


def test_children_may_stand_before_their_parents(lab: Workspace) -> None:
    for name in ("c", "b", "a", "d"):
        add_expert(lab, name)
    registry = Goals(lab).registry
    registry.set_parent("c", "b")
    registry.set_parent("b", "a")
    registry.set_parent("d", "a")
    tree = ExpertTable(registry.read().cards).tree()
    assert tree["expert_id"].tolist() == ["a", "b", "c", "d"]
    assert tree["depth"].tolist() == [0, 1, 2, 1]


@settings(max_examples=10)
@given(names=st.lists(ANY_TEXT, min_size=1, max_size=30))
def test_any_text_is_only_text(names: list[str]) -> None:
    content = RegistryContent.empty(Path("registry.json"))
    for at, name in enumerate(names):
        content.add(ExpertCard(expert_id=f"x{at}", name=name, category=name))
    rows = ExpertTable(content.cards).find()
    assert rows["name"].tolist() == names


def test_an_empty_registry_has_empty_tables(lab: Workspace) -> None:
    empty = ExpertTable(Goals(lab).registry.read().cards)
    assert not empty.counts([])
    assert empty.find().empty
    assert empty.tree().empty
    assert empty.categories() == []


def test_bundles_of_an_expert(lab: Workspace, goals: Goals) -> None:
    attach(lab, "docs", "one")
    two = attach(lab, "docs", "two")
    bad = attach(lab, "docs", "bad")
    (bad / "metadata.json").write_text("{")
    assert by_expert(lab.run_dirs(), lab) == {"docs": ["brains/actv1/one", "brains/actv1/two"]}
    (two / "metadata.json").write_text('{"experts": [{"expert_id": "poems"}, 5]}')
    assert by_expert(lab.run_dirs(), lab) == {"docs": ["brains/actv1/one"], "poems": ["brains/actv1/two"]}


def test_all_fields_of_a_card_as_text(lab: Workspace) -> None:
    metrics = {"loss_with": 2.0, "loss_without": 2.5, "deep": {"a": [1]}}
    card = add_expert(lab, "x", name=HOSTILE, performance_metrics=metrics, training_datasets=("a.txt", "b.txt"))
    lines = dict(zip(*(card_fields(card)[name] for name in ("field", "value")), strict=True))
    assert lines["name"] == HOSTILE
    assert lines["performance_metrics.loss_with"] == "2.0"
    assert json.loads(lines["performance_metrics.deep"]) == {"a": [1]}
    assert lines["training_datasets"] == "a.txt, b.txt"
    assert lines["is_active"] == "true"
    assert lines["sha256"] == ""
    assert {name.partition(".")[0] for name in lines} == set(ExpertCard.model_fields)
    assert losses(card) == (2.0, 2.5)
    assert losses(card.model_copy(update={"performance_metrics": {"loss_with": "x"}})) == (None, None)


def test_goals_with_their_experts(goals: Goals) -> None:
    goals.link_expert(1, "poems")
    rows = served_goals(goals)
    assert [(served.goal.id, served.experts) for served in rows] == [(1, ("docs", "poems")), (2, ("docs",))]
    frame = goal_frame(rows)
    assert frame["state"].tolist() == [["active"], ["inactive"]]
    assert frame["created"].notna().all()
    assert [served.goal.id for served in matching(rows, "POEMS errors")] == [1]
    assert matching(rows, "nothing") == []
    assert goal_frame([]).empty


def test_the_tree_is_drawn_with_escaped_names(lab: Workspace) -> None:
    add_expert(lab, "top", name=HOSTILE)
    add_expert(lab, "low", parent_expert_id="top", is_frozen=True, is_active=False)
    figure = charts.family_tree(ExpertTable(Goals(lab).registry.read().cards).tree(), "low")
    edges, active, both = figure.data
    assert list(edges.x) == [0, 0, 1, None]
    assert active.name == "active"
    assert list(active.customdata) == ["top"]
    assert "<img" not in active.hovertext[0]
    assert both.name == "inactive, frozen"
    assert both.text[0] == " <b>low</b>"
