"""The notebook that compares hrm-text with transformers, made small: what is equal, what is shared, what it says."""

from __future__ import annotations

import json
from pathlib import Path

from lab.cli.app import main
from tests.tiny_runs import rows, with_base_model, with_small_corpus

SMALL = {
    "steps": 2,
    "sweep_steps": 2,
    "learning_rates": [0.001],
    "depths": [1, 2],
    "num_seeds": 1,
    "num_evals": 1,
    "hidden_size": 32,
    "max_seq_len": 16,
    "batch_size": 2,
}


def test_the_comparison_runs_and_concludes(workspace: Path, source: Path) -> None:
    place = with_base_model(workspace, source)
    with_small_corpus(workspace)
    words = [word for name, value in SMALL.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    assert main(["run", "transformer-bench", *words]) == 0

    (folder,) = (path.parent for path in (workspace / "artifacts" / "notebooks").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf8"))
    assert record["status"] == "finished"
    said = record["summary"]
    beside = [said[name] for name in said if ", beside " in name]
    assert len(beside) == 5, list(said)  # each depth beside equal FLOPs and equal parameters, and the depths
    assert all("0 of 1 seeds" in line or "1 of 1 seeds" in line for line in beside)
    assert all(line.endswith("these seeds can tell") for line in beside), "of one seed"
    assert set(record["bundles"]) == {f"artifacts/brains/actv1/{path.name}" for path in place.brains.iterdir()}

    runs = list(place.brains.iterdir())
    assert len(runs) <= 5, "the sweep's trainings have the same settings as the others, and are not made again"
    assert len({json.dumps([row["tokens"] for row in rows(run) if row["event"] == "train"]) for run in runs}) == 1
    networks = [json.loads((run / "config.json").read_text(encoding="utf8")) for run in runs]
    depths = {"hrm-text": {1, 2}, "transformer": {1}}
    for arch, wanted in depths.items():
        assert {network["halt_max_steps"] for network in networks if network["arch"] == arch} == wanted
    layers = [network["h_layers"] for network in networks if network["arch"] == "transformer"]
    assert min(layers) == 2, "as many parameters as one layer in each of two levels"
    assert max(layers) > 6, "as many FLOPs as two segments of six calls"
