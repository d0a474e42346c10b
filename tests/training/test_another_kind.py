"""A kind of training that the lab does not know is one file: everything else that a training has comes by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.config import build_config, kinds
from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.training import TrainResult, drive, settle, train
from hrm_engine.training.estimating.estimate import estimate
from lab.cli.app import main
from tests.dashboard.conftest import open_app
from tests.tiny_runs import interrupter, lasting_rows, row_of, rows

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

__all__ = ["open_app"]

MODULE = "tests.training.line_kind"
REPOSITORY = Path(__file__).parents[2]
SETTINGS = {"data_file": "training_data/table.npy", "steps": 6, "batch_size": 4, "lr": 0.01, "eval_every": 3}
SETTINGS |= {"save_every": 2, "device": "cpu"}


@pytest.fixture
def lab(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a table, and the kind registered as a user does it; gone again after the test."""
    monkeypatch.setattr(kinds, "_TABLE", dict(kinds._TABLE))
    monkeypatch.setattr(kinds, "_LOADED", set())
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setenv("HRM_LAB_KINDS", MODULE)
    draw = np.random.default_rng(0)
    table = draw.normal(size=(80, 4)).astype(np.float32)
    table[:, -1] = table[:, 0] - 2 * table[:, 1]
    np.save(workspace / "training_data/table.npy", table)
    return Workspace(workspace)


def config(**changed: Any) -> Any:
    return build_config(kinds.table()["line"].config, overrides={**SETTINGS, **changed})


def run(lab: Workspace, name: str, **changed: Any) -> TrainResult:
    return train(config(run_name=name, **changed), workspace=lab)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_it_learns_and_leaves_a_run_folder_like_any_other(lab: Workspace) -> None:
    result = run(lab, "straight", steps=60)
    assert (result.state, result.step, result.run_dir) == ("finished", 60, lab.runs / "straight")
    assert result.first_eval is not None
    assert result.last_eval is not None
    assert result.last_eval["loss"] < 0.5 * result.first_eval["loss"]
    start = row_of(result.run_dir, "start")
    assert (start["kind"], start["num_rows"]) == ("line", 72)
    for folder in (result.run_dir, result.run_dir / "checkpoints/step_00000060"):
        assert json.loads((folder / "config.json").read_text())["kind"] == "line"
        assert json.loads((folder / "training_args.json").read_text())["kind"] == "line"
    assert "rows/s" in (result.run_dir / "run.log").read_text()


def test_flags_help_and_a_preset(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "train", "line", "--help-all")
    assert "--data-file" in shown
    assert "--width" in shown
    assert "Train a small network" in shown
    preset = lab.root / "small.yaml"
    preset.write_text("kind: line\ndata: {data_file: training_data/table.npy}\nnetwork: {width: 8}\nrun: {steps: 4}\n")
    shown = output(capsys, "train", "line", "--config", preset, "--run-name", "flags", "--steps", 3, "--device", "cpu")
    assert "72 rows of the table" in shown
    assert "lab bundle show flags" in shown
    assert json.loads((lab.runs / "flags/config.json").read_text())["width"] == 8
    assert main(["train", "line", "--data-file", "x.npy", "--width", "0"]) == 2
    assert main(["train", "puzzle", "--config", str(preset)]) == 2
    assert "kind line" in capsys.readouterr().err


def test_resuming_is_exact(lab: Workspace) -> None:
    straight = run(lab, "straight").run_dir
    stopped = train(config(run_name="run"), workspace=lab, observer=interrupter(3))
    assert (stopped.state, stopped.step) == ("stopped", 3)
    resumed = train(config(run_name="run"), resume=True, given={}, workspace=lab)
    assert resumed.step == 6
    assert files(resumed.run_dir) == files(straight)
    assert files(resumed.run_dir / "checkpoints/step_00000006") == files(straight / "checkpoints/step_00000006")
    assert lasting_rows(resumed.run_dir) == lasting_rows(straight)
    with pytest.raises(ConfigError, match=r"--width is 16 in the saved run, 8 was given"):
        train(config(run_name="run"), resume=True, given={"width": 8}, workspace=lab)


def test_a_fork_goes_on_from_the_checkpoint(lab: Workspace) -> None:
    parent = run(lab, "parent").run_dir
    given = {"run_name": "same"}
    same = train(config(**given), from_checkpoint=parent / "checkpoints/step_00000004", given=given, workspace=lab)
    assert files(same.run_dir) == files(parent)
    given = {"run_name": "fork", "steps": 8, "lr": 0.001}
    fork = train(config(**given), from_checkpoint="parent", given=given, workspace=lab)
    assert fork.step == 8
    assert [row["step"] for row in rows(fork.run_dir) if row["event"] == "train"] == [7, 8]


def test_an_estimate(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = estimate(config(), workspace=lab, limit_s=0.1)
    assert found.parameters.total == 3 * 16 + 16 + 16 + 1
    assert found.flops.forward == 2 * 4 * (3 * 16 + 16)
    assert found.flops.backward > found.flops.forward
    assert found.memory.weights > 0
    assert found.measured is not None
    assert found.measured.num_steps > 0
    words = ("estimate", "line", "--data-file", SETTINGS["data_file"], "--no-measure", "--json")
    assert json.loads(output(capsys, *words))["parameters"]["total"] == found.parameters.total


def test_bundle_commands_and_the_log(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run(lab, "one")
    assert "line" in output(capsys, "bundle", "list")
    assert '"width": 16' in output(capsys, "bundle", "show", "one", "--json")
    assert "every file is as it was saved" in output(capsys, "bundle", "verify", "one")
    output(capsys, "bundle", "copy", "one", "two", "--with-checkpoints")
    assert verify_bundle(lab.runs / "two") == []
    assert train(config(run_name="two"), resume=True, given={"steps": 8}, workspace=lab).step == 8
    assert "step 6: finished" in output(capsys, "logs", "one")
    (lab.runs / "one/model.safetensors").write_bytes(b"damaged")
    assert main(["bundle", "verify", "one"]) == 2


def test_a_process_that_does_not_know_the_kind_lists_it_too(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(lab, "one")
    monkeypatch.delenv("HRM_LAB_KINDS")
    kinds._TABLE.pop("line")
    assert "line" in output(capsys, "bundle", "list")
    assert "every file is as it was saved" in output(capsys, "bundle", "verify", "one")
    monkeypatch.setenv("HRM_LAB_KINDS", "no.such.module")
    with pytest.raises(ConfigError, match=r"HRM_LAB_KINDS=no\.such\.module: this module cannot be imported"):
        kinds.table()


@pytest.mark.parametrize("tab", ["Curves", "Evaluation", "Throughput", "Parameters", "Checkpoints", "Log"])
def test_the_page_of_a_run_has_general_panels(lab: Workspace, open_app: Callable[..., AppTest], tab: str) -> None:
    run(lab, "shown")
    app = open_app("run", run="runs/shown", tab=tab)
    assert not app.exception
    assert {"Training loss", "Validation loss", "Step"} <= {metric.label for metric in app.metric}
    if tab == "Evaluation":
        assert {"Loss", "Largest error"} <= {title.value for title in app.subheader}


def test_the_settings_of_a_session_follow_one_rule(lab: Workspace) -> None:
    from hrm_engine.config.training import Beginning
    from hrm_engine.training import Trainer

    kind, how = kinds.table()["line"].config, Beginning()
    settings = settle(kind, {"steps": 2, "run_name": "two"}, how, lab, preset={"data": {"data_file": "x.npy"}})
    assert (settings.run.steps, str(settings.data.data_file)) == (2, "x.npy")
    settings = settle(kind, {**SETTINGS, "run_name": "two"}, how, lab)
    assert drive(Trainer(settings, how, workspace=lab)).step == 6
    again = settle(
        kind, {"run_name": "two", "steps": 8}, Beginning(resume=True), lab, preset={"network": {"width": 16}}
    )
    assert (again.run.steps, again.network.width) == (8, 16)


def test_the_page_of_the_docs_is_this_kind() -> None:
    page = (REPOSITORY / "docs/add-a-kind.md").read_text(encoding="utf8")
    source = Path(str(import_module("tests.training").__path__[0]), "line_kind.py").read_text(encoding="utf8")
    assert f"```python\n{source}```" in page
