"""The page Goals without a browser: what it shows and changes; the files are looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import confirm, labels, link_of, press
from tests.dashboard.reading import assert_clean, markup, texts
from tests.dashboard.registries import on_disk, write_registry

OpenApp = Callable[..., AppTest]


@pytest.fixture
def goals(lab: Workspace) -> Goals:
    return write_registry(lab)


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


def test_a_click_on_what_is_no_longer_chosen_does_nothing_and_says_so(open_app: OpenApp, lab: Workspace) -> None:
    goals = Goals(lab)
    for text in ("one", "two"):
        goals.add(text)
    app = open_app("goals", goal="1")
    app.query_params["goal"] = "2"  # chosen, and not drawn yet
    app = app.get_by_key("remove 1").click().run()
    assert_clean(app)
    assert "Nothing was done" in texts(app)
    assert "dialog_yes" not in {button.key for button in app.button}
    app = app.get_by_key("remove 2").click().run()
    assert "Goal 2 and its links" in texts(app)
