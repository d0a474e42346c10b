"""``lab bundle copy | rename | delete``, killed before any change: the old or the new, and no leftovers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.files import is_temporary
from tests.tiny_experts import make_expert
from tests.tiny_runs import Forks, Lab

KILLED = -9


@pytest.fixture
def base(lab: Lab) -> Path:
    """A finished run of two steps with one checkpoint."""
    return lab.train("base", steps=2, eval_every=2, save_every=2).run_dir


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if is_temporary(path))


def num_changes(lab: Lab, forks: Forks, *command: str) -> int:
    """How many changes a command makes that is not killed."""
    marks = lab.root / "marks"
    marks.unlink(missing_ok=True)
    assert forks.run(lab.root, *command, watch=lab.workspace.brains) == 0, lab.output()
    return len(marks.read_text().splitlines())


def test_a_killed_copy_is_no_bundle_or_a_whole_one(lab: Lab, forks: Forks, base: Path) -> None:
    brains = base.parent
    count = num_changes(lab, forks, "bundle", "copy", "base", "whole", "--with-checkpoints")
    assert count > 8
    finished = {"base", "whole"}
    for number in range(1, count + 1):
        name = f"killed-{number}"
        command = ("bundle", "copy", "base", name, "--with-checkpoints")
        assert forks.run(lab.root, *command, watch=brains, kill_at=number) == KILLED, lab.output()
        finished |= {name} & {path.name for path in lab.workspace.run_dirs()}
        assert len(leftovers(brains)) <= 1, "what the last one left was put away"
        assert verify_bundle(base) == []
    assert {path.name for path in lab.workspace.run_dirs()} == finished
    for name in finished:
        assert verify_bundle(brains / name) == []
    assert forks.run(lab.root, "bundle", "copy", "base", "killed-1") == 0, lab.output()
    assert leftovers(brains) == []


def test_a_killed_attach_is_cleaned_up_by_the_next_change(lab: Lab, forks: Forks, base: Path) -> None:
    brains = base.parent
    make_expert(lab.workspace, "poems", inner=json.loads((base / "config.json").read_text())["intermediate_size"])
    attach = ("experts", "attach", "poems", "--bundle", "base")
    for number, following in enumerate([("bundle", "copy", "base", "twin"), ("bundle", "rename", "twin", "t"), attach]):
        assert forks.run(lab.root, *attach, watch=brains, kill_at=3 + number) == KILLED, lab.output()
        assert len(leftovers(brains)) == 1
        assert forks.run(lab.root, *following) == 0, lab.output()
        assert leftovers(brains) == []
    assert {path.name for path in brains.iterdir()} == {"base", "t", "base-poems"}


def test_a_killed_rename_has_the_old_or_the_new_name(lab: Lab, forks: Forks, base: Path) -> None:
    brains = base.parent
    (brains / "base").rename(brains / "a0")
    count = num_changes(lab, forks, "bundle", "rename", "a0", "a")
    for number in range(1, count + 1):
        assert forks.run(lab.root, "bundle", "rename", "a", "b", watch=brains, kill_at=number) == KILLED
        [name] = [path.name for path in brains.iterdir()]
        assert name in {"a", "b"}
        assert verify_bundle(brains / name) == []
        assert forks.run(lab.root, "bundle", "rename", name, "c") == 0, lab.output()
        assert forks.run(lab.root, "bundle", "rename", "c", "a") == 0, lab.output()
    assert verify_bundle(brains / "a") == []


def test_a_killed_deletion_has_deleted_nothing_or_the_name(lab: Lab, forks: Forks, base: Path) -> None:
    brains = base.parent
    shutil.copytree(base, brains / "whole")
    count = num_changes(lab, forks, "bundle", "delete", "whole", "--yes")
    assert count > 10
    seen = set()
    for number in range(1, count + 1, 2):
        name = f"killed-{number}"
        shutil.copytree(base, brains / name)
        assert forks.run(lab.root, "bundle", "delete", name, "--yes", watch=brains, kill_at=number) == KILLED
        seen.add((brains / name).exists())
        if (brains / name).exists():
            assert verify_bundle(brains / name) == []
            assert forks.run(lab.root, "bundle", "delete", name, "--yes") == 0, lab.output()
        assert len(leftovers(brains)) <= 1
    assert seen == {True, False}
    assert forks.run(lab.root, "bundle", "copy", "base", "twin") == 0, lab.output()
    assert sorted(path.name for path in brains.iterdir()) == ["base", "twin"]
