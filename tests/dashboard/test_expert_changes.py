"""Changing experts on their page, without a browser: what stands in the files then, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import confirm, labels, link_of, press, toasts
from tests.dashboard.reading import assert_clean, texts
from tests.dashboard.registries import attach, on_disk, train_expert, write_registry

OpenApp = Callable[..., AppTest]


@pytest.fixture
def goals(lab: Workspace) -> Goals:
    return write_registry(lab)


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
    assert "Its children: generics" in texts(app)
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
    app = app.get_by_key("freeze notes").click().run()
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
