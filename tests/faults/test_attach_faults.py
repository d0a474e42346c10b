"""``lab experts attach``, killed before any change that it makes: no bundle, or a whole one."""

from __future__ import annotations

import json

from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.experts import ExpertRegistry
from tests.tiny_experts import make_expert
from tests.tiny_runs import Forks, Lab


def test_killed_at_any_change(lab: Lab, forks: Forks) -> None:
    path = lab.train("base", steps=2, eval_every=2, save_every=2).run_dir
    make_expert(lab.workspace, "poems", inner=json.loads((path / "config.json").read_text())["intermediate_size"])
    command = ("experts", "attach", "poems", "--bundle", "base", "--name")
    brains, marks = lab.workspace.brains, lab.root / "marks"
    assert forks.run(lab.root, *command, "whole", watch=brains) == 0
    num_changes = len(marks.read_text().splitlines())
    assert num_changes > 5
    for number in range(1, num_changes + 1):
        assert forks.run(lab.root, *command, f"killed-{number}", watch=brains, kill_at=number) == -9, lab.output()
    finished = {path.name for path in lab.workspace.run_dirs()}
    assert {"base", "whole"} <= finished
    for name in finished - {"base"}:
        assert verify_bundle(brains / name) == []
        assert [entry.expert_id for entry in attached_experts(brains / name)] == ["poems"]
    # what was killed holds no lock and no name
    assert forks.run(lab.root, *command, "killed-1") == 0, lab.output()
    assert [card.expert_id for card in ExpertRegistry(lab.workspace).cards()] == ["poems"]
