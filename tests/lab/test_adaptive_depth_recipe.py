"""The notebook about adaptive depth, made small: a real kernel, a real brain, thresholds, kinds of token, colours."""

from __future__ import annotations

import json
from pathlib import Path

import plotly.io
import pytest

from hrm_engine.errors import ConfigError, NotebookError
from hrm_engine.store.manifest import write_sealed
from lab.cli.app import main
from tests.lab.notebooks import run_cells
from tests.tiny_runs import Lab, with_base_model, with_small_corpus


def test_the_notebook_trains_sweeps_and_colours(
    workspace: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_base_model(workspace, source)
    with_small_corpus(workspace)
    given = {"steps": 1, "batch_size": 2, "hidden_size": 64, "halt_max_steps": 2, "held_out_rows": 2}
    words = [word for name, value in {**given, "num_documents": 2}.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "adaptive-depth", *words]) == 0
    assert "adaptive depth" in capsys.readouterr().out

    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert record["bundles"] == ["artifacts/brains/actv1/default"]
    summary = dict(record["summary"])
    deepest = float(summary["loss after 2 segments"])
    assert summary["adaptive depth"].startswith(("At threshold", "No threshold"))
    assert "segments" in summary["by itself, threshold 0.5"]

    # the same brain again, measured by hand
    assert main(["eval", "text", "--bundle", "default", "--max-rows", "2", "--halt-threshold", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["loss_by_segment"][-1] == pytest.approx(deepest, abs=1e-4)
    assert told["adaptive"][0]["mean_depth"] == 2
    assert told["adaptive"][0]["loss"] == pytest.approx(told["loss_by_segment"][-1], abs=1e-5)
    assert main(["eval", "text", "--bundle", "default", "--max-rows", "2"]) == 0
    assert "halts by itself, threshold 0.5" in capsys.readouterr().out
    assert main(["eval", "text", "--bundle", "default", "--halt-threshold", "1.5"]) == 2
    assert "--halt-threshold 1.5: " in capsys.readouterr().err
    assert main(["eval", "text", "--bundle", "default", "--dataset-file", "nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err


@pytest.fixture
def brains(lab: Lab) -> Lab:
    """A brain of two segments and one of a single one, beside a text that none was trained on."""
    lab.train("deep", halt_max_steps=2, steps=1, max_seq_len=32)
    lab.train("flat", halt_max_steps=1, steps=1)
    (lab.root / "other.txt").write_text("a dog\n\nthe cat runs\n", encoding="utf8")
    return lab


def refused(workspace: Path, **given: object) -> str:
    """What the recipe says of values that it does not take."""
    with pytest.raises((ConfigError, NotebookError)) as refusal:
        run_cells("adaptive-depth", workspace, given)
    return str(refusal.value)


def test_brains_that_cannot_be_measured_are_told_in_the_words_of_the_recipe(
    brains: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused(brains.root, brain="flat")
    assert "flat runs one segment at every token" in told
    assert "--halt-threshold" not in told
    # an imported model has no such file
    folder = brains.run_dir("deep")
    (folder / "training_args.json").unlink()
    facts = json.loads((folder / "metadata.json").read_text(encoding="utf8"))
    del facts["files"]["training_args.json"]
    write_sealed(folder / "metadata.json", facts)
    assert "deep does not say what it was trained on: add -p dataset_file=FILE" in refused(brains.root, brain="deep")
    monkeypatch.setattr(plotly.io.renderers, "default", "json")  # not a browser
    given = {"brain": "deep", "dataset_file": "other.txt", "batch_size": 2}
    summary = dict(run_cells("adaptive-depth", brains.root, given)["told"]["summary"])
    assert {"loss after 1 segment", "loss after 2 segments"} <= set(summary)
