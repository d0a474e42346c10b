"""The notebook about adaptive depth, made small: a real kernel, a real brain, thresholds, kinds of token, colours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.tiny_runs import make_source


def test_the_notebook_trains_sweeps_and_colours(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path_factory.mktemp("depth") / "source")
    place = Workspace(workspace)
    place.base_model.parent.mkdir(parents=True)
    (source / "artifacts" / "hf_implant" / "base_model").rename(place.base_model)
    given = {"steps": 2, "batch_size": 2, "hidden_size": 64, "halt_max_steps": 3, "held_out_rows": 2}
    words = [word for name, value in {**given, "num_documents": 2}.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "adaptive-depth", *words]) == 0
    assert "adaptive depth" in capsys.readouterr().out

    (folder,) = (workspace / "artifacts" / "notebooks").iterdir()
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert record["bundles"] == ["artifacts/brains/actv1/default"]
    summary = dict(record["summary"])
    deepest = float(summary["loss after 3 segments"])
    assert summary["adaptive depth"].startswith(("At threshold", "No threshold"))
    assert "segments" in summary["by itself, threshold 0.5"]

    # the same brain again, measured by hand
    assert main(["eval", "text", "--bundle", "default", "--max-rows", "2", "--halt-threshold", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["loss_by_segment"][-1] == pytest.approx(deepest, abs=1e-4)
    assert told["adaptive"][0]["mean_depth"] == 3
    assert told["adaptive"][0]["loss"] == pytest.approx(told["loss_by_segment"][-1], abs=1e-5)
    assert main(["eval", "text", "--bundle", "default", "--max-rows", "2"]) == 0
    assert "halts by itself, threshold 0.5" in capsys.readouterr().out
    assert main(["eval", "text", "--bundle", "default", "--halt-threshold", "1.5"]) == 2
    assert "use a probability from 0" in capsys.readouterr().err
    assert main(["eval", "text", "--bundle", "default", "--dataset-file", "nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err
