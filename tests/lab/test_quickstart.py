"""The first thing that a newcomer runs, made small: the whole of it, from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrm_engine.bundles.listing import verify_bundle
from lab.cli.app import main


def test_quickstart_goes_from_nothing_to_a_trained_brain(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"steps": 2, "batch_size": 2, "max_seq_len": 24, "hidden_size": 64, "prompt": "The list"}
    words = [word for name, value in small.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "quickstart", *words]) == 0
    shown = capsys.readouterr().out
    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    assert {name: record["parameters"][name] for name in small} == small
    lines = (folder / "output.log").read_text(encoding="utf8").splitlines()
    assert any(line.startswith("step 2  validation loss ") for line in lines), lines
    summary = record["summary"]
    losses = ["validation loss before", "validation loss after", "loss of a unigram model"]
    assert list(summary) == [*losses, "conclusion", "sample"]
    assert summary["conclusion"].startswith("The brain ends ")
    assert 0 < summary["loss of a unigram model"] < summary["validation loss before"]
    assert summary["sample"].startswith("The list")
    assert record["bundles"] == ["artifacts/brains/actv1/default"]
    assert verify_bundle(workspace / record["bundles"][0]) == []
    assert (workspace / "training_data" / "curated_datasets" / "python_docs" / "train.jsonl").is_file()
    assert (workspace / "artifacts" / "hf_implant" / "base_model" / "config.json").is_file()

    page = (folder / "quickstart.html").read_text(encoding="utf8")
    assert page.count('class="hrm-figure"') == 1
    assert "Plotly.newPlot" in page
    assert "unigram model" in page
    for told in ("validation loss before", "artifacts/brains/actv1/default", "quickstart.html", "lab dashboard"):
        assert told in shown
