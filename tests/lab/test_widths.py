"""What commands list fits a terminal of 80 columns; a pipe gets whole rows."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli.app import COMMANDS, build_app, main
from tests.lab.generating import brain, trained
from tests.store.registries import add, registry

__all__ = ["brain", "registry", "trained"]

LONG = "a-name-as-long-as-names-may-be-" + "x" * 20
COMMANDS_OF_LISTS = [
    ["doctor"],
    ["optim", "list"],
    ["recipes", "list"],
    *(["recipes", "show", name] for name in ("quickstart", "adaptive-depth", "transformer-bench")),
    ["bundle", "list"],
    ["bundle", "show", LONG],
    ["experts", "list"],
    ["experts", "show", LONG],
    ["goals", "list"],
    ["goals", "list-for-expert", LONG],
    ["goals", "get-expert", "1"],
    ["eval", "text", "--bundle", LONG, "--dataset-file", "text.txt"],
    ["disk"],
]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def full(workspace: Path, brain: object, registry: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with long names everywhere."""
    place = Workspace(workspace)
    (run,) = place.brains.iterdir()
    run.rename(run.with_name(LONG))
    add(registry, LONG, f"{LONG}-2", name="Summarise long reports of many pages", category="summaries and reports")
    goals = Goals(place)
    goals.add("Summarise whatever somebody has written at length, in a few plain sentences", expert_id=LONG)
    (workspace / "text.txt").write_text("a dog\n\nthe cat runs\n" * 20, encoding="utf8")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return workspace


def shown(words: list[str], stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(words) == 0
    return stream.getvalue()


@pytest.mark.parametrize("words", COMMANDS_OF_LISTS, ids=" ".join)
def test_lists_fit_80_columns(words: list[str], full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(words, Terminal(), monkeypatch)
    plain = "".join(part.partition("m")[2] if number else part for number, part in enumerate(text.split("\x1b[")))
    assert [line for line in plain.splitlines() if cell_len(line) > 80] == []
    assert len(plain.split()) > 3


@pytest.mark.parametrize("words", COMMANDS_OF_LISTS, ids=" ".join)
def test_a_pipe_gets_whole_rows(words: list[str], full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped, drawn = shown(words, io.StringIO(), monkeypatch), shown(words, Terminal(), monkeypatch)
    assert "\x1b" not in piped
    if words[:2] == ["bundle", "list"]:
        assert f"brains/actv1/{LONG}" in piped
    assert len(piped.splitlines()) <= len(drawn.splitlines())


@pytest.mark.parametrize("words", [["goals", "list"], ["experts", "list"], ["bundle", "list"]], ids=" ".join)
def test_an_empty_list_says_what_comes_next(words: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(words, Terminal(), monkeypatch)
    assert "'lab " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_every_list_is_among_them() -> None:
    app = build_app()
    lists = {(name, "list") for name, *_ in COMMANDS if "list" in app[name]} - {("data", "list")}
    assert lists <= {tuple(words[:2]) for words in COMMANDS_OF_LISTS}
