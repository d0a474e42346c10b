"""An expert that was trained alone and attached does in the brain what it did in its training."""

from __future__ import annotations

from typing import Any

import pytest

from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.experts import attach_expert, detach_expert
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import BundleError
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import sha256_file
from tests.tiny_runs import Lab, rows
from tests.training.expert_runs import base_of, train_expert


def held_out_losses(lab: Lab, expert_id: str, **settings: Any) -> list[tuple[float, float]]:
    """Held-out loss with the expert and without it, of every evaluation of its training."""
    found = rows(train_expert(lab, expert_id, **settings).run_dir)
    return [(row["loss"], row["loss_without"]) for row in found if row["event"] == "eval"]


@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_it_lowers_the_held_out_loss_and_the_parent_is_unchanged(lab: Lab, kind: str) -> None:
    base = base_of(lab, kind)["student_init"]
    weights = sha256_file(lab.run_dir("base") / "model.safetensors")
    # what is kept is the best evaluation
    with_it, without = min(held_out_losses(lab, "helper", student_init=base, steps=8, lr=1e-2))
    assert with_it < without
    child = attach_expert("helper", base, workspace=lab.workspace)
    assert [entry.layer for entry in attached_experts(child)] == ["H.0"]
    # an expert that is trained on the child sees what the child says without it
    assert held_out_losses(lab, "probe", student_init=str(child), steps=1)[0][1] == pytest.approx(with_it, rel=1e-4)
    back = detach_expert("helper", child, workspace=lab.workspace)
    assert held_out_losses(lab, "probe-2", student_init=str(back), steps=1)[0][1] == pytest.approx(without, rel=1e-6)
    assert sha256_file(back / "model.safetensors") == weights
    assert sha256_file(lab.run_dir("base") / "model.safetensors") == weights
    ExpertRegistry(lab.workspace).update("helper", is_active=False)
    assert held_out_losses(lab, "probe-3", student_init=str(child), steps=1)[0][1] == pytest.approx(without, rel=1e-4)


def test_an_expert_is_verified_and_is_no_brain(lab: Lab) -> None:
    base = base_of(lab, "experts")["student_init"]
    folder = train_expert(lab, "helper", student_init=base, steps=2).run_dir
    assert verify_bundle(folder) == []
    assert [row.name for row in list_bundles(lab.workspace)] == ["base"]
    with pytest.raises(BundleError, match="of kind 'expert'"):
        attach_expert("helper", folder, workspace=lab.workspace)
    weights = folder / "expert.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert "expert.safetensors has changed" in verify_bundle(folder)[0]


def test_checkpoints_and_best_know_their_experts(lab: Lab) -> None:
    base = base_of(lab, "experts")["student_init"]
    train_expert(lab, "helper", student_init=base, steps=2)
    child = attach_expert("helper", base, workspace=lab.workspace)
    run = lab.train("on", use_moe=True, num_experts=3, amp=False, student_init=str(child)).run_dir
    folders = (run, run / "best", run / "checkpoints" / "step_00000006")
    assert [[entry.expert_id for entry in attached_experts(folder)] for folder in folders] == [["helper"]] * 3
    ExpertRegistry(lab.workspace).update("helper", is_active=False)
    (run / "metadata.json").unlink()  # as while it is still trained
    for folder in folders[1:]:
        model = load_bundle(folder, device="cpu", workspace=lab.workspace).model
        assert model.routers["H.0"].steering.tolist() == [0, 0, 0, float("-inf")]
