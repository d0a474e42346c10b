"""Experts trained alone: on a frozen bundle or model folder, exactly resumable, entered in the registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.weights import load_tensors
from hrm_engine.config import TextTrainConfig, build_config
from hrm_engine.errors import BundleError, CheckpointError, ConfigError
from hrm_engine.starting.implant import create_implant
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import sha256_file
from hrm_engine.store.goals import Goals
from hrm_engine.training import train
from tests.tiny_runs import TEXT, VOCABULARY, Lab, rows, text
from tests.training.expert_runs import BASES, base_of, expert_config, train_expert


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", BASES)
def test_an_expert_is_trained_and_entered(lab: Lab, kind: str) -> None:
    base = base_of(lab, kind)
    before = files(Path(base["student_init"])) if base else {}
    result = train_expert(lab, "helper-1", default_goal="Say more about cats", steps=8, lr=1e-2, **base)
    evals = [row for row in rows(result.run_dir) if row["event"] == "eval"]
    assert len({round(row["loss_without"], 9) for row in evals}) == 1, "the base is frozen"
    assert evals[-1]["loss"] < evals[-1]["loss_without"]
    assert files(Path(base["student_init"])) == before if base else True

    card = ExpertRegistry(lab.workspace).get("helper-1")
    assert card.checkpoint_path == "artifacts/experts/helper-1/expert.safetensors"
    assert card.sha256 == sha256_file(result.run_dir / "expert.safetensors")
    assert card.training_config["steps"] == 8
    assert card.training_config["layer"] == (None if kind == "model folder" else "H.0")
    assert card.performance_metrics["loss_with"] == pytest.approx(min(row["loss"] for row in evals[1:]))
    assert card.performance_metrics["loss_without"] == pytest.approx(evals[-1]["loss_without"])
    assert card.training_datasets == ("training_data/text.txt",)
    assert [goal.text for goal in Goals(lab.workspace).list_for_expert("helper-1")] == ["Say more about cats"]
    assert [link.text for link in card.goals] == ["Say more about cats"]
    tensors = load_tensors(result.run_dir, "expert")
    assert sorted(tensors) == ["down_proj", "gate_proj", "router", "up_proj"]
    assert not (result.run_dir / "model.safetensors").exists()


@pytest.mark.parametrize("kind", BASES)
def test_the_card_counts_what_all_evaluations_sent_to_it(lab: Lab, kind: str) -> None:
    base = base_of(lab, kind)
    registry = ExpertRegistry(lab.workspace)

    def use() -> tuple[int, float]:
        card = registry.get("helper")
        return card.total_activations, card.avg_routing_weight

    def evals(run_dir: Path) -> list[dict[str, Any]]:
        return [row for row in rows(run_dir) if row["event"] == "eval"]

    first = evals(train_expert(lab, "helper", **base).run_dir)
    counts = [row["total_activations"] for row in first]
    assert len(counts) > 2
    assert 0 < counts[0] < counts[1] < counts[-1]
    assert use() == (counts[-1], first[-1]["avg_routing_weight"])
    if kind == "model folder":
        assert counts == [row["num_tokens"] * number for number, row in enumerate(first, 1)]
        assert use()[1] == 1
    else:
        assert 0 < use()[1] < 1
    again = evals(train_expert(lab, "helper", **base).run_dir)
    assert again[0]["total_activations"] > counts[-1]
    twice = use()
    assert twice[0] == again[-1]["total_activations"]
    train_expert(lab, "helper", resume=True)
    assert use() == twice, "a training that was finished already adds nothing"


def test_beside_a_dense_layer_it_begins_as_what_was_there(lab: Lab) -> None:
    base = base_of(lab, "dense")
    result = train_expert(lab, "same", steps=1, **base)
    first = next(row for row in rows(result.run_dir) if row["event"] == "eval")
    assert first["loss"] == pytest.approx(first["loss_without"], abs=1e-6)


@pytest.mark.parametrize("kind", BASES)
def test_an_interrupted_training_ends_as_a_straight_one(lab: Lab, kind: str) -> None:
    base = base_of(lab, kind)
    straight = train_expert(lab, "straight", **base)
    stopped = train_expert(lab, "interrupted", stop_at=3, **base)
    assert (stopped.state, stopped.step) == ("stopped", 3)
    resumed = train_expert(lab, "interrupted", resume=True)
    assert (resumed.state, resumed.step) == ("finished", 6)
    one, other = (load_tensors(result.run_dir, "expert") for result in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    cards = [ExpertRegistry(lab.workspace).get(name) for name in ("straight", "interrupted")]
    assert len({(card.total_activations, card.avg_routing_weight) for card in cards}) == 1


def test_another_base_is_not_resumed_on(lab: Lab) -> None:
    base = base_of(lab, "dense")
    train_expert(lab, "helper", stop_at=3, **base)
    shutil.rmtree(base["student_init"])
    lab.train("base", amp=False, seed=1, **BASES["dense"])
    with pytest.raises(CheckpointError, match="is not the one this training began on"):
        train_expert(lab, "helper", resume=True)
    assert train_expert(lab, "helper", resume=True, allow_other_base=True).step == 6


def test_an_expert_is_trained_further_and_attached_on_its_own_base_alone(lab: Lab) -> None:
    base = base_of(lab, "dense")
    train_expert(lab, "helper", steps=1, **base)
    other = lab.train("other", amp=False, seed=1, steps=1, **BASES["dense"]).run_dir
    with pytest.raises(ConfigError, match=r"helper was trained on .*base.* --allow-other-base"):
        train_expert(lab, "helper", steps=1, student_init=str(other))
    with pytest.raises(ConfigError, match=r"'helper' was trained on .*base.* --allow-other-base"):
        attach_expert("helper", other, workspace=lab.workspace)
    child = attach_expert("helper", base["student_init"], workspace=lab.workspace)
    train_expert(lab, "friend", steps=1, **base)
    grandchild = attach_expert("friend", child, workspace=lab.workspace)
    assert attach_expert("helper", grandchild, layer="L.0", workspace=lab.workspace).is_dir()
    assert train_expert(lab, "friend", steps=1, student_init=str(child)).state == "finished"
    # the card has the new base from now on
    with pytest.raises(ConfigError, match="--allow-other-base"):
        attach_expert("friend", base["student_init"], name="again", workspace=lab.workspace)
    assert attach_expert("helper", other, allow_other_base=True, workspace=lab.workspace).is_dir()
    assert train_expert(lab, "helper", steps=1, student_init=str(other), allow_other_base=True).state == "finished"


def test_an_implant_that_was_replaced_is_another_base(lab: Lab) -> None:
    implant = {"workspace": lab.workspace, "dataset_file": Path(TEXT), "hidden_size": 64, "replace": True}
    create_implant(vocab_size=VOCABULARY, **implant)
    model = {"model": str(lab.workspace.base_model)}
    train_expert(lab, "whole", steps=1, **model)
    train_expert(lab, "half", stop_at=3, **model)
    create_implant(vocab_size=VOCABULARY, seed=1, **implant)  # the sizes are the same
    with pytest.raises(ConfigError, match=r"whole was trained on .*base_model.* --allow-other-base"):
        train_expert(lab, "whole", steps=1, **model)
    create_implant(vocab_size=270, **implant)  # rows are cut otherwise
    with pytest.raises(CheckpointError, match="the base .*base_model is not the one this training began on"):
        train_expert(lab, "half", resume=True, **model)


def test_the_same_id_again_is_trained_further(lab: Lab) -> None:
    base = base_of(lab, "dense")
    train_expert(lab, "helper", **base)
    (lab.root / "training_data" / "more.txt").write_text(text(30, seed=7))
    more = {"dataset_file": "training_data/more.txt", "eval_file": "training_data/text.txt"}
    second = train_expert(lab, "helper", **more, **base)
    begun = next(row for row in rows(second.run_dir) if row["event"] == "eval")
    assert begun["loss"] < begun["loss_without"] - 1e-3, "it begins with what it had learned"
    card = ExpertRegistry(lab.workspace).get("helper")
    assert card.training_datasets == ("training_data/text.txt", "training_data/more.txt")
    assert card.sha256 == sha256_file(second.run_dir / "expert.safetensors")
    assert list((lab.root / "artifacts" / "experts" / ".archive").iterdir())


def test_until_there_is_something_newer_the_old_weights_stay(lab: Lab) -> None:
    base = base_of(lab, "dense")
    train_expert(lab, "helper", **base)
    registry = ExpertRegistry(lab.workspace)
    before = registry.get("helper").sha256

    def fail(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(expert_config(lab, "helper", **base), workspace=lab.workspace, observer=fail)
    assert sha256_file(registry.weights("helper")) == before == registry.get("helper").sha256


def test_what_cannot_be_trained(lab: Lab) -> None:
    base = base_of(lab, "dense")
    train_expert(lab, "helper", steps=1, **base)
    registry = ExpertRegistry(lab.workspace)
    registry.update("helper", is_frozen=True)
    before = files(registry.folder("helper"))
    with pytest.raises(ConfigError, match="expert helper is frozen"):
        train_expert(lab, "helper", **base)
    assert files(registry.folder("helper")) == before
    with pytest.raises(ConfigError, match="Bad Id"):
        train_expert(lab, "Bad Id", **base)
    with pytest.raises(BundleError, match="no run 'nowhere'"):
        train_expert(lab, "other", brain_name="nowhere")
    with pytest.raises(BundleError, match="expert"):
        train_expert(lab, "other", student_init=str(registry.folder("helper")))
    with pytest.raises(ConfigError, match="--expert-id"):
        build_config(TextTrainConfig, overrides={"dataset_file": "t.txt", "expert_id": "x"})
    tokenizer_only = lab.root / "tokenizer-only"
    shutil.copytree(lab.tokenizer, tokenizer_only)
    with pytest.raises(ConfigError, match="tokenizer-only"):
        train_expert(lab, "other", model=str(tokenizer_only))
    assert not (lab.root / "artifacts" / "experts" / "other").exists()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_size": 128}, "--hidden-size"),
        ({"halt_max_steps": 1, "num_experts": 4}, "--halt-max-steps, --num-experts"),
        ({"use_moe": False}, "--no-moe"),
        ({"goal": "active"}, "--goal"),
        ({"student_init": "somewhere", "expansion": 4.0}, "--expansion"),
    ],
)
def test_what_would_change_nothing_is_refused(lab: Lab, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}: not with --expert-id"):
        expert_config(lab, "helper-1", **changed)
    assert expert_config(lab, "helper-1", expansion=4.0).network.expansion == 4.0


def test_depth_is_for_bases_of_several_segments(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="--freeze-positions: the base .* runs one segment"):
        train_expert(lab, "helper-1", freeze_positions=0.0)
