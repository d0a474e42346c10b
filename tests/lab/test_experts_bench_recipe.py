"""The notebook that compares dense and MoE networks, made small: what it measures and how it words it."""

from __future__ import annotations

import json
from pathlib import Path

from lab.cli.app import main
from tests.tiny_puzzles import make_puzzles
from tests.tiny_runs import rows, with_base_model, with_small_corpus


def test_the_comparison_runs_and_concludes(workspace: Path, source: Path) -> None:
    place = with_base_model(workspace, source)
    with_small_corpus(workspace)
    make_puzzles(workspace / "training_data" / "puzzles" / "sudoku-4x4")
    given = {"steps": 2, "puzzle_steps": 1, "num_seeds": 1, "num_experts": 4, "hidden_size": 64, "batch_size": 2}
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "experts-bench", *words]) == 0

    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert record["summary"]["text"].startswith("MoE minus dense ")
    assert 0 < float(record["summary"]["least even layer"].split()[0]) <= 1
    starts = [rows(place.brains / name) for name in ("default", "default-2")]
    taken = [[row["tokens"] for row in found if row["event"] == "train"] for found in starts]
    assert taken[0] == taken[1], "the same rows in both"
