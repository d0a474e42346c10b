"""``lab train --from-checkpoint`` and ``--extend-schedule`` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrm_engine.config.kinds import TEXT
from hrm_engine.training.run_folder import existing_run
from lab.cli.app import main
from tests.tiny_runs import Lab, files, flags, row_of, rows


@pytest.fixture
def parent(lab: Lab) -> Path:
    """A finished run of 6 steps."""
    return lab.train("parent", eval_batches=0).run_dir


def test_a_fork_needs_only_its_checkpoint(lab: Lab, parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(parent)
    words = ["train", "actv1", "--from-checkpoint", "parent", "--brain-name", "child", "--steps", "7", "--lr", "0.001"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "forked from artifacts/brains/actv1/parent/checkpoints/step_00000006" in shown
    assert "resumed from" not in shown
    assert "finished at step 7" in shown
    assert rows(lab.run_dir("child"))[0]["step"] == 6
    assert files(parent) == before
    assert main(["bundle", "show", "child", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["parent"]["step"] == 6
    assert main(["train", "actv1", "--brain-name", "child", "--resume", "--steps", "9", "--extend-schedule"]) == 0
    said = capsys.readouterr().out
    assert "resumed from" in said
    assert "from step 8 on the schedule is that of a run of 9 steps; it was of 7" in " ".join(said.split())
    assert row_of(existing_run("child", parent.parent, TEXT.run), "train")["step"] == 9


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--from-checkpoint", "parent", "--resume"], "--resume and --from-checkpoint exclude each other"),
        (["--from-checkpoint", "parent", "--extend-schedule", "--steps", "9"], "--extend-schedule is for --resume"),
        (["--from-checkpoint", "parent"], "--steps 6 leaves nothing to train"),
        (["--from-checkpoint", "nowhere"], "no run 'nowhere'"),
        (["--from-checkpoint", "parent", "--steps", "9", "--hidden-size", "32"], "hidden_size is 64 there, 32 was"),
    ],
)
def test_what_cannot_be_exits_2_and_leaves_nothing(
    lab: Lab, parent: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(parent)
    assert main(["train", "actv1", "--brain-name", "child", *words]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not lab.run_dir("child").exists()
    assert files(parent) == before


def test_a_run_that_begins_has_nothing_to_extend(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "actv1", *flags(lab.settings(brain_name="child")), "--extend-schedule"]) == 2
    assert "--extend-schedule is for --resume" in " ".join(capsys.readouterr().err.split())
    assert not lab.run_dir("child").exists()
