"""``kill -9`` at random moments and at every kind of moment within a save: resuming always works and loses little."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.status import live_state, read_status
from tests.tiny_runs import Forks, Lab, assert_same_end, flags, row_of, rows

KILLED = -9
SMALL = {"h_cycles": 1, "l_cycles": 1, "halt_max_steps": 1}
"""What is saved has the same files as that of a larger network."""


def start(lab: Lab, name: str, **changed: object) -> list[str]:
    """The command line of a new run."""
    return ["train", "actv1", "--brain-name", name, *flags(lab.settings(**changed))]


def resume(name: str) -> list[str]:
    """The command line that continues a run."""
    return ["train", "actv1", "--resume", "--brain-name", name]


def num_lines(file: Path) -> int:
    """Lines of a file; 0 where there is none."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def test_killed_at_random_moments_again_and_again(lab: Lab, forks: Forks) -> None:
    settings = {"steps": 24, "save_every": 3, "eval_every": 8, "keep_last": 1, "linear_dataset": False, **SMALL}
    assert forks.run(lab.root, "--version") == 0  # torch is imported now
    assert forks.run(lab.root, *start(lab, "straight", **settings)) == 0
    draw = random.Random(20)
    num_kills = num_runs = 0
    while num_kills < 10:
        num_runs += 1
        run_dir = lab.run_dir(f"killed-{num_runs}")
        code = KILLED
        while code == KILLED:
            begun, already = (run_dir / "training_args.json").is_file(), num_lines(run_dir / "metrics.jsonl")
            child = forks.start(lab.root, *(resume(run_dir.name) if begun else start(lab, run_dir.name, **settings)))
            if num_kills < 10:
                # by what is written, not by the clock alone: how fast a run is differs from minute to minute
                wanted = already + draw.randint(0, 16)
                while num_lines(run_dir / "metrics.jsonl") < wanted and not (run_dir / "metadata.json").exists():
                    time.sleep(0.002)
                time.sleep(draw.uniform(0, 0.1))
                child.send(signal.SIGKILL)
            code = child.wait()
            if code == KILLED:
                num_kills += 1
                # a process that has done all its work and not yet ended can be killed as well
                state = live_state(run_dir) if (run_dir / "status.json").exists() else "dead"
                assert state == "dead" or (state == "finished" and verify_bundle(run_dir) == [])
        assert code == 0, lab.output()
        assert_same_end(lab.run_dir("straight"), run_dir)
        assert verify_bundle(run_dir) == []
        last = 0
        for row in rows(run_dir):
            if row["event"] == "resume":
                assert last - row["step"] <= settings["save_every"]
            last = row["step"] if row["event"] == "train" else last
    assert num_runs <= 5, "the kills are meant to come in the middle of runs"


@pytest.fixture
def seed_run(lab: Lab, forks: Forks) -> Path:
    """A run of four steps, stopped after two, of which copies are killed in what follows."""
    settings = {"steps": 4, "save_every": 2, "eval_every": 2, "keep_last": 1, **SMALL}
    assert forks.run(lab.root, *start(lab, "straight", **settings)) == 0
    lab.interrupted("seed", 2, **settings)
    return lab.run_dir("seed")


def chosen(changes: list[str]) -> list[int]:
    """Numbers of the changes to kill at: each that ends a phase, and some of the many alike, in every phase."""
    ends = ("/best", "/checkpoints/step_00000004", ".json", ".safetensors")
    inner = [number for number, change in enumerate(changes, 1) if "/.tmp-" in change or not change.endswith(ends)]
    outer = [number for number in range(1, len(changes) + 1) if number not in set(inner)]
    return sorted({*outer, *random.Random(3).sample(inner, 12)})


def test_killed_in_each_phase_of_a_save(lab: Lab, forks: Forks, seed_run: Path) -> None:
    """Evaluation with its best weights, checkpoint, removal of the old checkpoint, and the bundle."""
    shutil.copytree(seed_run, lab.run_dir("whole"))
    assert forks.run(lab.root, *resume("whole"), watch=lab.run_dir("whole")) == 0
    assert_same_end(lab.run_dir("straight"), lab.run_dir("whole"))
    changes = (lab.root / "marks").read_text().splitlines()
    phases = {"best": "/best", "checkpoint": "/checkpoints/step_00000004", "bundle": "/metadata.json"}
    for phase, path in phases.items():
        assert f"os.rename {path}" in changes, f"no {phase} was saved"
    assert "os.rmdir /checkpoints/step_00000002" in changes, "no old checkpoint was removed"
    moments = chosen(changes)
    assert 20 < len(moments) < 35

    after_kill: dict[int, list[int]] = {}
    for moment in moments:
        run_dir = lab.run_dir(f"killed-{moment}")
        shutil.copytree(seed_run, run_dir)
        assert forks.run(lab.root, *resume(run_dir.name), watch=run_dir, kill_at=moment) == KILLED
        whole = [info.step for info in list_checkpoints(run_dir) if not info.problems]
        after_kill[moment] = whole
        # keep-last is 1: there is always one that can be used
        assert whole, changes[moment - 1]
        assert lab.resume(run_dir.name).exit_code == 0, changes[moment - 1]
        assert row_of(run_dir, "resume")["step"] == whole[-1]
        assert verify_bundle(run_dir) == [], changes[moment - 1]
        assert_same_end(lab.run_dir("straight"), run_dir)
        left = [path.name for path in run_dir.rglob(".*") if path.name != ".lock"]
        assert left == [], changes[moment - 1]
        shutil.rmtree(run_dir)
    assert {tuple(steps) for steps in after_kill.values()} == {(2,), (2, 4), (4,)}


def test_killed_while_the_first_bundle_is_written(lab: Lab, forks: Forks) -> None:
    settings = {"steps": 2, "eval_batches": 0, "save_every": 2}
    assert forks.run(lab.root, *start(lab, "straight", **settings), watch=lab.run_dir("straight")) == 0
    changes = (lab.root / "marks").read_text().splitlines()
    for number, change in enumerate(changes, 1):
        if change in ("os.rename /config.json", "os.rename /tokenizer.json", "os.rename /metadata.json"):
            run_dir = lab.run_dir(f"killed-{number}")
            assert forks.run(lab.root, *start(lab, run_dir.name, **settings), watch=run_dir, kill_at=number) == KILLED
            assert "metadata.json is missing" in verify_bundle(run_dir)[0]
            assert forks.run(lab.root, *resume(run_dir.name)) == 0
            assert verify_bundle(run_dir) == []
            assert_same_end(lab.run_dir("straight"), run_dir)


def test_killed_before_anything_was_saved_the_name_can_be_used(lab: Lab, forks: Forks) -> None:
    run_dir = lab.run_dir("run")
    for moment in (1, 2):
        code = forks.run(lab.root, *start(lab, "run", steps=2, eval_batches=0), watch=run_dir, kill_at=moment)
        assert code == KILLED
    assert forks.run(lab.root, *start(lab, "run", steps=2, eval_batches=0)) == 0
    assert read_status(run_dir).state == "finished"
    assert json.loads((run_dir / "metadata.json").read_text())["step"] == 2
