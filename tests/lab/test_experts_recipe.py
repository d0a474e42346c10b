"""The notebook about experts, made small: a real kernel, real trainings, a brain with two experts at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.goals import Goals
from lab.cli.app import main
from tests.tiny_runs import SETTINGS, with_base_model, with_small_corpus


def test_the_notebook_trains_attaches_and_steers(
    workspace: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = with_base_model(workspace, source)
    with_small_corpus(workspace)
    given = {"steps": 1, "expert_steps": 1, "batch_size": SETTINGS["batch_size"], "hidden_size": 64, "num_experts": 2}
    words = [word for name, value in {**given, "held_out_rows": 2}.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "experts", *words]) == 0
    shown = capsys.readouterr().out

    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    (bundle,) = record["bundles"]
    assert bundle == "artifacts/brains/actv1/default-code-names"
    assert verify_bundle(workspace / bundle) == []
    assert [entry.column for entry in attached_experts(workspace / bundle)] == [2, 3]
    registry = ExpertRegistry(place)
    assert [card.expert_id for card in registry.cards()] == ["default-code", "default-names"]
    assert workspace / bundle in attached_to("default-code", place)
    assert [goal.text for goal in Goals(place).list_goals()] == ["Write Python code", "Name characters"]
    assert "probability of its expert on code" in shown
