"""``lab experts``: what it prints, what it changes on disk, and what it refuses in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import sha256_file, write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli.app import main


@pytest.fixture
def registry(workspace: Path) -> ExpertRegistry:
    """Two experts, one with weights."""
    registry = ExpertRegistry(Workspace(workspace))
    folder = registry.folder("poems")
    folder.mkdir(parents=True)
    (folder / "expert.safetensors").write_bytes(b"weights")
    write_json(folder / "metadata.json", {"schema_version": 1})
    weights = folder / "expert.safetensors"
    facts = {"checkpoint_path": registry.place(weights), "sha256": sha256_file(weights)}
    registry.add(ExpertCard(expert_id="poems", name="Poems", performance_metrics={"loss_with": 2.5}, **facts))
    registry.add(ExpertCard(expert_id="test-expert-004"))
    return registry


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["experts", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_list_and_show(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    Goals(registry.workspace).add("Rhyme \x1b[2J", expert_id="poems")
    registry.set_parent("test-expert-004", "poems")
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split() == ["poems", "Poems", "-", "active", "1", "-", "test-expert-004", "never", "0"]
    assert lines[2].split()[:2] == ["test-expert-004", "-"]
    code, out, _ = run(capsys, "show", "poems")
    assert code == 0
    assert "\x1b" not in out
    for line in ("goal 1               Rhyme [2J", "performance_metrics  loss_with 2.5", "attached_to          -"):
        assert line in out
    assert [card["expert_id"] for card in as_json(capsys, "list")] == ["poems", "test-expert-004"]
    card = as_json(capsys, "show", "poems")
    assert card["goals"] == [{"id": 1, "text": "Rhyme \x1b[2J"}]
    assert card["child_expert_ids"] == ["test-expert-004"]
    assert card["attached_to"] == []


def test_an_empty_workspace_is_told_how_to_begin(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert "lab train actv1 --expert-id" in out
    assert as_json(capsys, "list") == []


@pytest.mark.parametrize(
    ("word", "field", "value", "told"),
    [
        ("freeze", "is_frozen", True, "is active, frozen."),
        ("unfreeze", "is_frozen", False, "is active."),
        ("deactivate", "is_active", False, "is inactive."),
        ("activate", "is_active", True, "is active."),
    ],
)
def test_states(
    registry: ExpertRegistry, word: str, field: str, value: bool, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.update("poems", **{field: not value})
    code, out, err = run(capsys, word, "poems")
    assert (code, out, err) == (0, f"Expert poems {told}\n", "")
    raw = json.loads(registry.path.read_text())
    assert raw["experts"][0][field] is value
    assert as_json(capsys, word, "poems")[field] is value


def test_parents(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "set-parent", "test-expert-004", "poems")
    assert (code, out) == (0, "Expert test-expert-004 is active, parent poems.\n")
    assert registry.get("poems").child_expert_ids == ("test-expert-004",)
    for words, told in (
        (["poems", "test-expert-004"], "cycle"),
        (["poems"], "name either the parent's id or --root"),
        (["poems", "test-expert-004", "--root"], "name either"),
    ):
        code, out, err = run(capsys, "set-parent", *words)
        assert (code, out) == (2, "")
        assert told in err
    assert as_json(capsys, "set-parent", "test-expert-004", "--root")["parent_expert_id"] is None


def test_names(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "set", "poems", "--name", "Odes  of\told", "--category", "verse")
    assert (code, out) == (0, "Expert poems has name 'Odes of old', category 'verse'.\n")
    shown = as_json(capsys, "set", "poems", "--description=-- lines that rhyme", "--category", "")
    assert [shown[field] for field in ("name", "description", "category")] == ["Odes of old", "-- lines that rhyme", ""]
    assert registry.get("poems").description == "-- lines that rhyme"
    for words, told in (
        (["poems"], "nothing to change: give --name, --description or --category"),
        (["nobody", "--name", "x"], "no expert 'nobody'"),
        (["poems", "--is-frozen", "1"], "Unknown option"),
        (["poems", "--name", "\udcff"], "--name is not valid Unicode"),
        (["poems", "--description", "x" * 100_000], "--description must have 1 to"),
    ):
        code, out, err = run(capsys, "set", *words)
        assert (code, out) == (2, "")
        assert told in err


def test_export(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export", "poems", "out/poems")
    assert (code, out) == (0, "Copied expert poems to out/poems.\n")
    assert (registry.workspace.root / "out" / "poems" / "expert.safetensors").read_bytes() == b"weights"
    code, _, err = run(capsys, "export", "poems", "out/poems")
    assert code == 2
    assert "nothing is overwritten" in err


def test_deletion_needs_a_yes(
    registry: ExpertRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        code, out, err = run(capsys, "delete", "poems")
    assert (code, out) == (2, "")
    assert "Delete expert poems and everything in artifacts/experts/poems?" in err
    assert "--yes" in err
    code, out, _ = run(capsys, "delete", "poems", "--yes")
    assert (code, out) == (0, "Deleted expert poems and its folder artifacts/experts/poems.\n")
    assert [card.expert_id for card in registry.cards()] == ["test-expert-004"]
    assert not registry.folder("poems").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "is_deleted"), [("y\n", True), ("n\n", False), ("\n", False), ("\x04", False)])
def test_deletion_asks_on_a_terminal(registry: ExpertRegistry, answer: str, is_deleted: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "lab", "experts", "delete", "poems"]
    with subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.write(ours, answer.encode())
        out, _ = process.communicate()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert "everything in artifacts/experts/poems? [y/N]" in out
    assert ("Nothing was deleted." in out) is not is_deleted
    assert ("poems" in registry.read()) is not is_deleted


def test_an_attached_expert_is_kept(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = registry.workspace.runs / "with-expert"
    write_json(bundle / "training_args.json", {})
    write_json(bundle / "metadata.json", {"experts": [{"expert_id": "poems"}]})
    code, _, err = run(capsys, "delete", "poems", "--yes")
    assert code == 2
    assert "is attached to artifacts/runs/with-expert" in err
    assert as_json(capsys, "show", "poems")["attached_to"] == ["artifacts/runs/with-expert"]
    assert registry.folder("poems").is_dir()


def test_children_are_kept_or_moved_up(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.set_parent("test-expert-004", "poems")
    code, _, err = run(capsys, "delete", "poems", "--yes")
    assert code == 2
    assert "--reparent" in err
    assert run(capsys, "delete", "poems", "--yes", "--reparent")[0] == 0
    assert registry.get("test-expert-004").parent_expert_id is None


@pytest.mark.parametrize("word", ["show", "freeze", "unfreeze", "activate", "deactivate", "delete", "export"])
@pytest.mark.parametrize(
    ("name", "told"),
    [("test-expert-04", "Did you mean test-expert-004?"), ("../poems", "is not allowed"), ("Poems", "is not allowed")],
)
def test_experts_that_are_none(
    registry: ExpertRegistry, word: str, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = registry.path.read_bytes()
    code, out, err = run(capsys, word, name, *(["out"] if word == "export" else []))
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert registry.path.read_bytes() == before


def test_a_damaged_registry_is_named(registry: ExpertRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.path.write_text(registry.path.read_text()[:100])
    for words in (["list"], ["show", "poems"], ["freeze", "poems"], ["delete", "poems", "--yes"]):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert "registry.json, line" in err
    assert len(registry.path.read_text()) == 100
