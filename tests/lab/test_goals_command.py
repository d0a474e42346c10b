"""``lab goals`` and ``aios goals-...``: what they print, what they change, and what they refuse in one sentence."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli import aios
from lab.cli.app import main


@pytest.fixture
def goals(workspace: Path) -> Goals:
    found = Goals(Workspace(workspace))
    for name in ("test-expert-004", "poems"):
        found.registry.add(ExpertCard(expert_id=name, name=name.title()))
    return found


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["goals", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_commands_of_the_document(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand there; its goal 42 is an existing one, so there are 41 others."""
    for number in range(41):
        goals.add(f"goal {number}")
    for words, told in (
        (["goals-add", "Improve summarization quality", "--expert-id", "test-expert-004"], "Goal 42 is added, served"),
        (["goals-link-expert", "42", "test-expert-004"], "Expert test-expert-004 serves goal 42."),
        (["goals-list"], "42  yes     test-expert-004  Improve summarization quality"),
        (["goals-list-for-expert", "test-expert-004"], "42  yes     test-expert-004  Improve summarization quality"),
    ):
        assert aios.main(words) == 0
        assert told in capsys.readouterr().out
    assert goals.registry.get("test-expert-004").goals[0].id == 42


def test_every_word_is_also_one_of_aios(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    goals.add("Rhyme")
    for words in (
        ["deactivate", "1"],
        ["activate", "1"],
        ["link-expert", "1", "poems"],
        ["get-expert", "1"],
        ["unlink-expert", "1", "poems"],
        ["remove", "1", "--yes"],
        ["add", "again"],
        ["remove-like", "aga%", "--yes"],
    ):
        assert aios.main([f"goals-{words[0]}", *words[1:]]) == 0
        assert capsys.readouterr().err == ""
    assert goals.list_goals(active_only=False) == []
    assert aios.main(["goals-shout"]) == 2
    assert "goals-add" in capsys.readouterr().err


def test_active_goals_are_listed_and_all_with_a_flag(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lab goals add" in run(capsys, "list")[1] == run(capsys, "list", "--all")[1]
    added = as_json(capsys, "add", "Rhyme \x1b[2J", "--expert-id", "poems")
    assert (added["id"], added["active"], added["experts"]) == (1, True, ["poems"])
    run(capsys, "add", "Sing")
    code, out, _ = run(capsys, "deactivate", 2)
    assert (code, out) == (0, "Goal 2 is inactive: Sing\n")
    out = run(capsys, "list")[1]
    assert out.splitlines()[1:] == [" 1  yes     poems    Rhyme [2J"]
    assert [goal["id"] for goal in as_json(capsys, "list")] == [1]
    found = as_json(capsys, "list", "--all")
    assert [(goal["id"], goal["active"], goal["experts"]) for goal in found] == [(1, True, ["poems"]), (2, False, [])]
    assert as_json(capsys, "activate", 2)["active"] is True
    assert as_json(capsys, "list-for-expert", "poems") == found[:1]
    assert as_json(capsys, "list-for-expert", "test-expert-004") == []
    assert "serves no goal" in run(capsys, "list-for-expert", "test-expert-004")[1]


def test_experts_of_a_goal(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    goals.add("Rhyme")
    assert "No expert serves goal 1" in run(capsys, "get-expert", 1)[1]
    assert run(capsys, "link-expert", 1, "poems")[:2] == (0, "Expert poems serves goal 1.\n")
    assert run(capsys, "get-expert", 1)[1].splitlines()[1].split() == ["poems", "Poems"]
    assert as_json(capsys, "get-expert", 1) == ["poems"]
    assert run(capsys, "unlink-expert", 1, "poems")[:2] == (0, "Expert poems no longer serves goal 1.\n")
    code, _, err = run(capsys, "unlink-expert", 1, "poems")
    assert code == 2
    assert "does not serve goal 1" in err


def test_removal_needs_a_yes(goals: Goals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("Rhyme", "Rhyme more", "Sing"):
        goals.add(text)
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        for words, asked in (
            (["remove", 1], "Remove goal 1 (Rhyme)?"),
            (["remove-like", "rhyme%"], "Remove 2 goals: 1 (Rhyme), 2 (Rhyme more)?"),
        ):
            code, out, err = run(capsys, *words)
            assert (code, out) == (2, "")
            assert asked in err
            assert "--yes" in err
    assert len(goals.list_goals()) == 3
    assert run(capsys, "remove-like", "nothing", "--yes")[1] == "No goal fits 'nothing'.\n"
    assert run(capsys, "remove-like", "rhyme%", "--yes")[1] == "2 goals removed: 1, 2\n"
    assert run(capsys, "remove", 3, "--yes")[1] == "Removed goal 3: Sing\n"
    assert goals.list_goals(active_only=False) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["activate", "42"], "there is no goal 42"),
        (["remove", "42", "--yes"], "Goals: 1 (Rhyme)"),
        (["link-expert", "42", "poems"], "Goals: 1 (Rhyme)"),
        (["get-expert", "99999999999999999999"], "Goals: 1 (Rhyme)"),
        (["link-expert", "1", "test-expert-04"], "Did you mean test-expert-004?"),
        (["list-for-expert", "poem"], "Did you mean poems?"),
        (["add", "new", "--expert-id", "poem"], "Did you mean poems?"),
        (["add", "new", "--expert-id", "../x"], "is not allowed"),
        (["add", " "], "the text of a goal must have"),
        (["activate", "first"], "ID"),
        (["remove-like", ""], "a pattern must have"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    goals: Goals, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    goals.add("Rhyme")
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert [goal.text for goal in goals.list_goals()] == ["Rhyme"]


def test_a_damaged_database_is_named(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    goals.registry.workspace.goals.write_bytes(b"no database" * 1000)
    for words in (["list"], ["add", "x"], ["link-expert", "1", "poems"]):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert "goals.sqlite is damaged" in err
    assert goals.registry.workspace.goals.read_bytes() == b"no database" * 1000


def test_lost_goals_are_told_and_restored(goals: Goals, capsys: pytest.CaptureFixture[str]) -> None:
    goals.add("Rhyme", expert_id="poems")
    goals.path.write_bytes(b"")
    code, _, err = run(capsys, "list")
    assert code == 2
    assert "goals.sqlite is empty, and experts have goals that stood there" in err
    code, out, _ = run(capsys, "restore")
    assert code == 0
    assert out.startswith(
        "1 goal restored, all of them active, in artifacts/goals.sqlite; the damaged file is "
        "artifacts/goals.sqlite.damaged now"
    )
    assert "Rhyme" in run(capsys, "list")[1]
    code, _, err = run(capsys, "restore")
    assert (code, "there is nothing to restore" in err) == (2, True)
