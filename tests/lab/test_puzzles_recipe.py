"""The notebook about puzzles, made small: a real kernel, a real training, everything that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.config.base import PRESETS
from lab.cli.app import main
from tests.tiny_puzzles import PUZZLE_SETTINGS, make_puzzles
from tests.tiny_runs import rows

SMALL = ("hidden_size", "num_heads", "intermediate_size", "h_cycles", "l_cycles", "halt_max_steps")


def tiny_preset(root: Path) -> Path:
    """``sudoku-4x4`` with a tiny network, some steps, and puzzles that are there already."""
    preset: dict[str, Any] = yaml.safe_load((PRESETS / "sudoku-4x4.yaml").read_text(encoding="utf8"))
    make_puzzles(root / "training_data" / "puzzles" / "tiny")
    preset["network"] |= {name: PUZZLE_SETTINGS[name] for name in SMALL}
    preset["data"]["data_path"] = "training_data/puzzles/tiny"
    preset["run"] = {"steps": 100, "batch_size": 8}
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(preset), encoding="utf8")
    return path


def test_the_notebook_builds_trains_evaluates_and_shows(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"preset": str(tiny_preset(workspace)), "steps": 3, "segments": 4, "num_failures": 2, "run_name": "small"}
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "puzzles", *words]) == 0
    shown = capsys.readouterr().out

    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert record["bundles"] == ["artifacts/runs/small"]
    run_dir = workspace / "artifacts" / "runs" / "small"
    assert verify_bundle(run_dir) == []
    full = [row for row in rows(run_dir) if row["event"] == "eval" and row.get("full")]
    assert (full[-1]["step"], full[-1]["num_rows"]) == (3, 16)
    solved = full[-1]["exact_accuracy_when_halting"]
    every = full[-1]["exact_accuracy"]
    assert record["summary"]["puzzles solved after 3 segments"] == f"{every:.1%} of 16 held-out ones"
    assert record["summary"]["puzzles solved when it halts itself"].startswith(f"{solved:.1%}, after ")

    # The end of the command: a puzzle, segment by segment, drawn with its lines.
    ((label, board),) = record["blocks"].items()
    assert re.match(r"held-out puzzle \d+, segment by segment", label)
    assert label in shown
    assert [f"segment {number}" in board for number in (1, 4)] == [True, True]
    assert f"    {board.splitlines()[1]}\n" in shown
    assert board.splitlines()[1].startswith("+-----+-----+    +-----+-----+")

    notebook = nbformat.read(folder / "puzzles.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    data = [output["data"] for output in outputs if "data" in output]
    viewers = [item for item in data if "application/vnd.jupyter.widget-view+json" in item]
    failures = 16 - round(16 * solved)
    assert len(viewers) == 1 + min(2, failures)
    assert all(item["text/html"].count("<img") == 5 for item in viewers)
    assert sum("application/vnd.plotly.v1+json" in item for item in data) == 3
    # What JupyterLab needs to move the slider without a kernel.
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert viewers[0]["application/vnd.jupyter.widget-view+json"]["model_id"] in states

    page = (folder / "puzzles.html").read_text(encoding="utf8")
    assert page.count('class="hrm-figure"') == 3
    assert page.count('<img src="data:image/svg+xml;base64,') + page.count("<img alt=") == 2 + 5 * len(viewers)
    for told in ("baseline: majority", "held-out puzzles are not solved", "lab solve --bundle small"):
        assert told in page
