"""Puzzle trainings: exact continuation with slots, average and embedding; what a run leaves; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.weights import load_tensors
from hrm_engine.data.puzzles.arc.build import build_arc
from hrm_engine.errors import BundleError, CheckpointError, ConfigError, DataError
from hrm_engine.inference import generate
from hrm_engine.training import Trainer
from tests.tiny_puzzles import DATASET, PuzzleLab
from tests.tiny_runs import assert_same_end, files, lasting_rows, row_of, rows

KINDS: dict[str, dict[str, Any]] = {
    "trm": {},
    "hrm with Q-continue": {"arch": "hrm", "optimizer": "adam_atan2"},
    "moving average and symmetries": {"ema_decay": 0.9, "symmetries": True},
    "average that starts late": {"ema_decay": 0.9, "ema_start_step": 4},
    "slots in two parts": {"gradient_accumulation_steps": 2, "batch_size": 4},
    "mixer of positions": {"arch": "trm-mlp", "optimizer": "muon"},
    "noise and damping": {"initial_state": "noise", "state_noise": 0.01, "damping": 0.95},
    "three latents": {"num_latents": 3},
    "curriculum": {"depth_curriculum": "0:1x1,0.5:1x2"},
    "warm-up of gradient calls": {"grad_calls": "full", "grad_calls_warmup": 0.9},
    "transformer": {"arch": "transformer", "h_layers": 2},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "softmax": {"loss": "softmax", "label_smoothing": 0.1},
    "fp32": {"amp": False},
    "experts": {"use_moe": True, "num_experts": 3, "balance": "bias", "ema_decay": 0.9},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_as_a_straight_one(puzzle_lab: PuzzleLab, kind: str) -> None:
    puzzle_lab.train("straight", **KINDS[kind])
    stopped = puzzle_lab.interrupted("interrupted", 3, **KINDS[kind])
    assert (stopped.state, stopped.step) == ("stopped", 3)
    resumed = puzzle_lab.resume("interrupted")
    assert (resumed.state, resumed.step) == ("finished", 6)
    assert_same_end(puzzle_lab.run_dir("straight"), puzzle_lab.run_dir("interrupted"))


def test_a_run_that_is_interrupted_in_a_later_epoch_ends_as_a_straight_one(puzzle_lab: PuzzleLab) -> None:
    # 24 groups and 8 slots, each with a fresh puzzle in every second step: the third epoch begins after 12 steps
    settings = {"halt_max_steps": 2, "halt_exploration_prob": 0.0, "steps": 16, "eval_rows": 0}
    puzzle_lab.train("straight", **settings)
    stopped = puzzle_lab.interrupted("interrupted", 13, **settings)
    place = load_tensors(stopped.run_dir / "checkpoints" / "step_00000013", "task")["epoch"]
    assert place.tolist() == [2, 48]
    puzzle_lab.resume("interrupted")
    assert [row["epoch"] for row in rows(puzzle_lab.run_dir("straight")) if row["event"] == "train"][-1] == 2
    assert_same_end(puzzle_lab.run_dir("straight"), puzzle_lab.run_dir("interrupted"))


def test_the_checkpoint_holds_slots_average_and_embedding(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", ema_decay=0.9, puzzle_lr=0.1)
    newest = result.run_dir / "checkpoints" / "step_00000006"
    task = load_tensors(newest, "task")
    assert task["z_h"].shape == (8, 17, 32)
    assert task["inputs"].shape == (8, 16)
    assert int(task["cursor"]) == row_of(result.run_dir, "train")["rows"] > 8
    optimizer = load_tensors(newest, "optimizer")
    assert any(name.startswith("ema/") for name in optimizer)
    weights = load_tensors(newest, "model")
    # row 0 is the blank identifier, which all Sudokus share
    assert weights["puzzle_embedding.weight"].abs().max() > 0


def test_rows_are_counted_as_slots_take_them(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", halt_max_steps=2, steps=8, eval_rows=0, halt_exploration_prob=0.0)
    taken = [row["rows"] for row in rows(result.run_dir) if row["event"] == "train"]
    # nothing halts by itself so early: every slot takes a row in every second step
    assert taken == [8, 8, 16, 16, 24, 24, 32, 32]
    last = row_of(result.run_dir, "train")
    assert (last["epoch"], last["dataset_position"]) == (1, 8)
    assert last["act_steps_mean"] == 2.0


def test_parts_of_the_slots_add_up_to_the_whole(puzzle_lab: PuzzleLab) -> None:
    losses = []
    for name, settings in (
        ("whole", {"batch_size": 8}),
        ("parts", {"batch_size": 2, "gradient_accumulation_steps": 4}),
    ):
        with Trainer(
            puzzle_lab.config(run_name=name, amp=False, **settings), workspace=puzzle_lab.workspace
        ) as trainer:
            losses.append([trainer.step().loss for _ in range(4)])
            trainer.finish()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_bundle_is_the_average_of_the_best_evaluation(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", ema_decay=0.5)
    bundle = load_bundle("run", workspace=puzzle_lab.workspace)
    assert verify_bundle(result.run_dir) == []
    assert (bundle.card.puzzle, bundle.card.height) == ("sudoku", 4)
    metadata = json.loads((result.run_dir / "metadata.json").read_text())
    assert metadata["kind"] == "puzzle"
    assert metadata["weights"]["average"] == 0.5
    assert metadata["full_evaluation"]["num_rows"] == 16
    lines = [json.loads(line) for line in (result.run_dir / "evaluation" / "rows.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(16))
    assert {"exact", "segments", "rating", "confidence"} <= lines[0].keys()
    newest = result.run_dir / "checkpoints" / "step_00000006"
    last = load_tensors(newest, "model")["lm_head.weight"]
    assert not torch.equal(bundle.model.lm_head.weight, last)


def test_evaluations_stand_beside_their_baselines(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run")
    row = row_of(result.run_dir, "eval")
    assert row["full"] is True
    assert len(row["exact_accuracy_by_segment"]) == 3
    for name in ("copy", "padding", "majority"):
        assert 0 <= row[f"{name}_cell_accuracy"] <= 1
    assert row["copy_cell_accuracy"] == pytest.approx(10 / 16)  # 6 of 16 cells are blank
    assert row["padding_cell_accuracy"] == 0.0


def test_a_solver_learns(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", steps=60, eval_every=60, symmetries=True, batch_size=16, lr=5e-3)
    cells = result.last_eval["cell_accuracy"] if result.last_eval else 0.0
    assert result.first_eval is not None
    assert cells > result.first_eval["cell_accuracy"] + 0.2


def test_training_stops_where_it_was_asked_to(puzzle_lab: PuzzleLab) -> None:
    config = {"steps": 60, "eval_every": 2, "early_stopping": 2, "lr": 1e-30, "puzzle_lr": 1e-30}
    result = puzzle_lab.train("run", **config)
    assert (result.state, result.exit_code) == ("stopped", 0)
    assert "--early-stopping" in result.message
    assert result.step < 60
    before = files(result.run_dir)
    again = puzzle_lab.resume("run")
    assert files(result.run_dir) == before
    assert (again.state, again.step) == ("stopped", result.step)
    assert again.message == f"{result.message}. Nothing is left to do; --resume with more --steps trains it further"


def test_steps_follow_from_epochs(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", epochs=2.0)
    assert result.step == 2 * 24 // 8


def test_the_same_seed_gives_the_same_run_and_another_one_another(puzzle_lab: PuzzleLab) -> None:
    puzzle_lab.train("one", symmetries=True)
    puzzle_lab.train("two", symmetries=True)
    assert_same_end(puzzle_lab.run_dir("one"), puzzle_lab.run_dir("two"))
    puzzle_lab.train("three", symmetries=True, seed=1)
    assert lasting_rows(puzzle_lab.run_dir("three")) != lasting_rows(puzzle_lab.run_dir("one"))


def test_a_dataset_without_an_array_is_refused(puzzle_lab: PuzzleLab) -> None:
    (puzzle_lab.root / DATASET / "train" / "all__labels.npy").unlink()
    with pytest.raises(DataError, match=r"all__labels\.npy is missing"):
        puzzle_lab.train("run")
    assert not puzzle_lab.run_dir("run").exists()


def test_tokens_outside_the_vocabulary_are_refused(puzzle_lab: PuzzleLab) -> None:
    path = puzzle_lab.root / DATASET / "train" / "all__inputs.npy"
    inputs = np.load(path)
    inputs[3, 5] = 77
    np.save(path, inputs)
    with pytest.raises(DataError, match="77"):
        puzzle_lab.train("run")


def test_another_dataset_is_not_resumed_on(puzzle_lab: PuzzleLab) -> None:
    puzzle_lab.interrupted("run", 3)
    path = puzzle_lab.root / DATASET / "train" / "all__inputs.npy"
    original = np.load(path)
    inputs = original.copy()
    inputs[0] = inputs[1]
    np.save(path, inputs)
    with pytest.raises(DataError, match="--allow-changed-data"):
        puzzle_lab.resume("run")
    # at another place the same rows are the same data
    np.save(path, np.concatenate([original[:1], inputs[1:]]))
    (puzzle_lab.root / DATASET).rename(puzzle_lab.root / "moved")
    with pytest.raises(DataError, match="--resume --data-path PATH"):
        puzzle_lab.resume("run")
    assert puzzle_lab.resume("run", data_path="moved").state == "finished"


def test_text_and_puzzles_are_not_confused(puzzle_lab: PuzzleLab) -> None:
    puzzle_lab.train("run")
    with pytest.raises(BundleError, match="'puzzle'.*needs kind 'actv1'"):
        load_bundle("run", Bundle, workspace=puzzle_lab.workspace)
    with pytest.raises(BundleError, match="run is no text model and writes nothing"):
        generate(load_bundle("run", workspace=puzzle_lab.workspace), "the cat")
    args = puzzle_lab.run_dir("run") / "training_args.json"
    content = json.loads(args.read_text())
    args.write_text(json.dumps({**content, "kind": "actv1"}))
    with pytest.raises(CheckpointError, match="lab train actv1"):
        puzzle_lab.resume("run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamv"}, "adamv"),
        ({"arch": "trm", "mixer": "sequence_mlp", "pos_encodings": "rope"}, "sequence_mlp"),
        ({"depth_curriculum": "0:9x9"}, "--depth-curriculum"),
        ({"q_continue": True, "halt_max_steps": 1}, "--q-continue"),
        ({"grad_calls": 99}, "--grad-calls"),
        ({"num_heads": 5}, "--num-heads"),
    ],
)
def test_settings_that_cannot_be_had_are_refused(puzzle_lab: PuzzleLab, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        puzzle_lab.train("run", **settings)
    assert not puzzle_lab.run_dir("run").exists()


def test_arc_is_scored_by_votes_on_whole_grids(puzzle_lab: PuzzleLab, tmp_path: Path) -> None:
    source = tmp_path / "tasks" / "evaluation"
    source.mkdir(parents=True)
    pair = {"input": [[1, 2], [3, 4]], "output": [[2, 1], [4, 3]]}
    other = {"input": [[5, 6]], "output": [[6, 5]]}
    (source / "abcd1234.json").write_text(json.dumps({"train": [pair, other], "test": [pair]}))
    build_arc(output_dir=puzzle_lab.root / "training_data" / "puzzles" / "arc", source=[str(source)], num_aug=2, seed=0)
    settings = {"data_path": "training_data/puzzles/arc", "steps": 2, "eval_every": 2, "batch_size": 2}
    result = puzzle_lab.train("arc", **settings, halt_max_steps=1, h_cycles=1, l_cycles=1)
    row = row_of(result.run_dir, "eval")
    assert row["pass_at_1"] in (0.0, 1.0)
    assert row["pass_at_2"] >= row["pass_at_1"]
    folder = result.run_dir / "evaluation"
    assert {file.name for file in folder.iterdir()} >= {"rows.jsonl", "arc_results.json", "submission.json"}
    assert list(json.loads((folder / "submission.json").read_text())) == ["abcd1234"]
