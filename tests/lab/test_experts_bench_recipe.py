"""The notebook that compares dense and MoE networks, made small: what it measures and how it words it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.tiny_puzzles import make_puzzles
from tests.tiny_runs import make_source, rows


def test_the_comparison_runs_and_concludes(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = make_source(tmp_path_factory.mktemp("bench") / "source")
    place = Workspace(workspace)
    place.base_model.parent.mkdir(parents=True)
    (source / "artifacts" / "hf_implant" / "base_model").rename(place.base_model)
    make_puzzles(workspace / "training_data" / "puzzles" / "sudoku-4x4")
    given = {"steps": 2, "puzzle_steps": 2, "num_seeds": 1, "num_experts": 4, "hidden_size": 64, "batch_size": 2}
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "experts-bench", *words]) == 0

    (folder,) = (workspace / "artifacts" / "notebooks").iterdir()
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert record["summary"]["text"].startswith("MoE minus dense ")
    assert 0 < float(record["summary"]["least even layer"].split()[0]) <= 1
    starts = [rows(place.brains / name) for name in ("default", "default-2")]
    taken = [[row["tokens"] for row in found if row["event"] == "train"] for found in starts]
    assert taken[0] == taken[1], "the same rows in both"
