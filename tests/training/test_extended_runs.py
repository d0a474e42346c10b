"""``--resume --steps M``: more steps on the schedule of before, or by ``--extend-schedule`` on that of a longer run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.config import TextTrainConfig
from hrm_engine.errors import ConfigError
from hrm_engine.training import train
from hrm_engine.training.run_folder import saved_config
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, assert_same_end, interrupter, lasting_rows, row_of

SCHEDULE = {"lr_scheduler": "cosine", "lr_min_ratio": 0.1, "warmup_steps": 2, "amp": False, "eval_batches": 0}


def rates(run_dir: Path) -> dict[int, float]:
    """Learning rates by step."""
    return {row["step"]: row["lr"] for row in lasting_rows(run_dir) if row["event"] == "train"}


def extend(lab: Lab, name: str, *, interrupt_at: int | None = None, **given: Any) -> Any:
    """Resume with ``--extend-schedule``."""
    return train(
        lab.config(brain_name=name),
        resume=True,
        extend_schedule=True,
        given=given,
        workspace=lab.workspace,
        observer=None if interrupt_at is None else interrupter(interrupt_at),
    )


def test_without_the_flag_the_last_rate_stays(lab: Lab) -> None:
    lab.trained("grown", **SCHEDULE)
    before = lasting_rows(lab.run_dir("grown"))
    result = lab.resume("grown", steps=9)
    assert (result.state, result.step) == ("finished", 9)
    after = lasting_rows(lab.run_dir("grown"))
    assert after[: len(before)] == before
    found = rates(result.run_dir)
    assert list(found) == list(range(1, 10))
    assert found[7] == found[9] == found[6] == pytest.approx(3e-4)
    saved = saved_config(result.run_dir, TextTrainConfig)
    assert (saved.run.steps, saved.evaluation.eval_every) == (9, 3)
    said = row_of(result.run_dir, "resume")["messages"]
    assert "the schedule ends at step 6: its last learning rate stays (--extend-schedule recomputes it)" in said


def test_with_the_flag_the_rates_are_those_of_a_run_of_that_length(lab: Lab) -> None:
    lab.trained("grown", **SCHEDULE)
    lab.train("long", **SCHEDULE, steps=9)
    first = rates(lab.run_dir("grown"))
    result = extend(lab, "grown", steps=9)
    found, wanted = rates(result.run_dir), rates(lab.run_dir("long"))
    assert {step: found[step] for step in first} == first
    assert [found[step] for step in (7, 8, 9)] == [wanted[step] for step in (7, 8, 9)]
    assert first[6] != wanted[6]
    said = row_of(result.run_dir, "resume")["messages"]
    assert "from step 7 on the schedule is that of a run of 9 steps; it was of 6" in said


@pytest.mark.parametrize("extended", [False, True])
def test_a_second_resume_goes_on_in_the_same_way(lab: Lab, extended: bool) -> None:
    for name in ("straight", "interrupted"):
        lab.train(name, **SCHEDULE, steps=4)
    resume: Any = extend if extended else Lab.resume
    resume(lab, "straight", steps=9)
    assert resume(lab, "interrupted", steps=9, interrupt_at=5).step == 5
    assert lab.resume("interrupted").step == 9
    assert_same_end(lab.run_dir("straight"), lab.run_dir("interrupted"))


def test_a_stop_before_the_first_step_keeps_the_schedule(lab: Lab) -> None:
    for name in ("straight", "stopped"):
        lab.train(name, **SCHEDULE, steps=4)
    extend(lab, "straight", steps=9)
    (lab.root / "STOP").touch()
    assert extend(lab, "stopped", steps=9, stop_file="STOP").state == "stopped"
    assert lab.resume("stopped").step == 9
    assert rates(lab.run_dir("stopped")) == rates(lab.run_dir("straight"))


def test_a_longer_run_that_was_killed_knows_its_length(lab: Lab) -> None:
    lab.trained("grown", **SCHEDULE)
    own = {name: (lab.run_dir("grown") / name).read_bytes() for name in ("training_args.json", "metadata.json")}
    extend(lab, "grown", steps=10, interrupt_at=8)
    # as a kill leaves it: only the end of a session writes the folder's own files
    for name, content in own.items():
        (lab.run_dir("grown") / name).write_bytes(content)
    with pytest.raises(ConfigError, match="--steps is 10 in the saved run, 8 was given"):
        lab.resume("grown", steps=8)
    assert lab.resume("grown").step == 10
    assert json.loads((lab.run_dir("grown") / "training_args.json").read_text())["parameters"]["run"]["steps"] == 10


def test_a_second_extension_needs_the_flag_again(lab: Lab) -> None:
    lab.train("grown", **SCHEDULE, steps=4)
    extend(lab, "grown", steps=6)
    newest = lab.run_dir("grown") / "checkpoints" / "step_00000006" / "MANIFEST.json"
    saved = newest.stat().st_mtime_ns
    assert extend(lab, "grown", steps=6).message.startswith("Nothing is left to do")  # the same command again
    assert newest.stat().st_mtime_ns == saved
    lab.resume("grown", steps=8)
    found = rates(lab.run_dir("grown"))
    assert found[6] == found[7] == found[8] == pytest.approx(3e-4)


def test_the_flag_is_for_resuming(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="--extend-schedule is for --resume"):
        train(lab.config(brain_name="run"), extend_schedule=True, workspace=lab.workspace)
    assert not lab.run_dir("run").exists()


def test_puzzles_too(puzzle_lab: PuzzleLab) -> None:
    settings = {"lr_scheduler": "linear", "warmup_steps": 0, "eval_rows": 0}
    puzzle_lab.train("grown", **settings, steps=4)
    puzzle_lab.train("long", **settings, steps=8)
    train(
        puzzle_lab.config(run_name="grown"),
        resume=True,
        extend_schedule=True,
        given={"steps": 8},
        workspace=puzzle_lab.workspace,
    )
    found, wanted = rates(puzzle_lab.run_dir("grown")), rates(puzzle_lab.run_dir("long"))
    assert [found[step] for step in (5, 6, 7, 8)] == [wanted[step] for step in (5, 6, 7, 8)]
