"""A finished solver is measured as its training measured it, and only on puzzles that it can know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.data.puzzles.arc.build import build_arc
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.errors import BundleError, ConfigError, DataError
from hrm_engine.inference.puzzles.evaluate_solver import evaluate_solver
from hrm_engine.inference.puzzles.held_out import HeldOut
from hrm_engine.models.slots import Objective
from lab.cli.app import main
from tests.arc_tasks import write_tasks
from tests.tiny_puzzles import DATASET, PuzzleLab
from tests.tiny_runs import rows
from tests.tiny_solvers import save_solver, tiny_card, tiny_solver

ARC = "training_data/puzzles/arc"


def final_fields(run_dir: Path) -> dict[str, Any]:
    """What the training measured last on the whole split."""
    return [row for row in rows(run_dir) if row["event"] in ("eval", "final") and row.get("num_rows") == 16][-1]


def test_it_finds_what_the_training_found(puzzle_lab: PuzzleLab, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = puzzle_lab.trained("run").run_dir
    bundle = load_bundle("run", PuzzleBundle, device="cpu", workspace=puzzle_lab.workspace)
    measured = evaluate_solver(bundle, workspace=puzzle_lab.workspace, batch_size=5)
    expected = final_fields(run_dir)
    found = measured.as_json()
    for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "exact_accuracy_when_halting", "act_steps_mean",
                 "copy_cell_accuracy", "majority_cell_accuracy", "num_rows"):  # fmt: skip
        assert found[name] == pytest.approx(expected[name], abs=0.02), name
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.02)
    words = ["eval", "puzzle", "--bundle", "run", "--device", "cpu", "--segments", "5", "--starts", "2"]
    assert main([*words, "--choose", "majority", "--output-dir", "out"]) == 0
    shown = capsys.readouterr().out
    for name in ("all of 5", "halts by itself", "2 starts, majority", "baseline: copy", "baseline: majority"):
        assert name in shown
    assert len((puzzle_lab.root / "out" / "rows.jsonl").read_text().splitlines()) == 16
    assert main([*words, "--json", "--eval-rows", "8"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["num_rows"], len(content["exact_accuracy_by_segment"])) == (8, 5)
    assert content["with_effort"]["segments_mean"] > 2


def test_the_loss_is_that_of_the_training_with_its_smoothing_of_labels(puzzle_lab: PuzzleLab) -> None:
    run_dir = puzzle_lab.train("smooth", label_smoothing=0.2, amp=False).run_dir
    bundle = load_bundle("smooth", PuzzleBundle, device="cpu", workspace=puzzle_lab.workspace)
    found = evaluate_solver(bundle, workspace=puzzle_lab.workspace).as_json()
    expected = final_fields(run_dir)
    for name in ("loss", "cell_accuracy", "exact_accuracy_by_segment", "act_steps_mean"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name


def test_a_checkpoint_and_a_run_that_ended_early(puzzle_lab: PuzzleLab) -> None:
    run_dir = puzzle_lab.interrupted("early", 3).run_dir
    for place in (run_dir, run_dir / "checkpoints" / "step_00000003"):
        bundle = load_bundle(place, PuzzleBundle, device="cpu", workspace=puzzle_lab.workspace)
        assert evaluate_solver(bundle, workspace=puzzle_lab.workspace).report.fields["num_rows"] == 16


def test_difficulties_are_groups_of_like_rating(puzzle_lab: PuzzleLab) -> None:
    test_set = open_dataset(puzzle_lab.root / DATASET, "test")
    held_out = HeldOut(None, test_set, None)
    report = held_out.evaluate(tiny_solver().model, Objective(ignore_label=None), batch_size=16, num_segments=2)
    assert "majority_cell_accuracy" not in report.fields
    for ratings in (np.zeros(16), np.arange(16) % 3, np.arange(16)):
        held_out.__dict__["ratings"] = ratings.astype(float)
        groups = report.by_difficulty()
        assert len(groups) == min(12, len(set(ratings.tolist())))
        assert sum(group["num_rows"] for group in groups) == 16
        assert [group["rating"] for group in groups] == sorted(group["rating"] for group in groups)
        mean = sum(group["num_rows"] * group["cell_accuracy"] for group in groups) / 16
        assert mean == pytest.approx(report.result.cells[:, -1].mean())


def test_what_does_not_fit_is_refused(puzzle_lab: PuzzleLab, tmp_path: Path) -> None:
    workspace, folder = puzzle_lab.workspace, puzzle_lab.root / DATASET
    four = tiny_solver()
    assert evaluate_solver(four, workspace=workspace, data_path=DATASET).report.fields["num_rows"] == 16
    with pytest.raises(DataError, match="does not name the dataset .* name one with --data-path"):
        evaluate_solver(four, workspace=workspace)
    with pytest.raises(DataError, match="nowhere: no such dataset"):
        evaluate_solver(four, workspace=workspace, data_path="nowhere")
    with pytest.raises(DataError, match=r"boards of 4 x 4 cells, 6 tokens; those of tiny are of 6 x 6 cells, 8 tokens"):
        evaluate_solver(tiny_solver(tiny_card(side=6)), workspace=workspace, data_path=DATASET)
    with pytest.raises(DataError, match=r"boards of sudoku, 6 tokens; those of tiny are of other, 7 tokens"):
        evaluate_solver(tiny_solver(tiny_card("other", 4)), workspace=workspace, data_path=DATASET)
    with pytest.raises(ConfigError, match="first_to_halt|views|starts"):
        evaluate_solver(
            four, workspace=workspace, data_path=DATASET, starts=64, starts_from="symmetries", choose="nonsense"
        )
    shutil.rmtree(folder / "test")
    with pytest.raises(DataError, match="test"):
        evaluate_solver(four, workspace=workspace, data_path=DATASET)


def test_a_text_bundle_is_no_solver(puzzle_lab: PuzzleLab) -> None:
    with pytest.raises(BundleError, match="is no solver"):
        evaluate_solver(SimpleNamespace(path=Path("brain")), workspace=puzzle_lab.workspace)  # type: ignore[arg-type]


def test_arc_tasks_are_known_by_their_names(puzzle_lab: PuzzleLab, tmp_path: Path) -> None:
    tasks, place = write_tasks(tmp_path / "tasks"), puzzle_lab.root / ARC
    build_arc(output_dir=place, source=[str(tasks)], num_aug=1, seed=0)
    dataset = open_dataset(place, "test")
    assert dataset.identifiers is not None
    names = tuple(dataset.identifiers)
    card = tiny_card("arc", 30, identifiers=names)
    solver = tiny_solver(card, num_identifiers=len(names), h_cycles=1, l_cycles=1, halt_max_steps=1)
    save_solver(solver, puzzle_lab.run_dir("arc"), dataset=ARC)
    out = puzzle_lab.root / "out"
    assert main(["eval", "puzzle", "--bundle", "arc", "--device", "cpu", "--output-dir", "out"]) == 0
    assert {file.name for file in out.iterdir()} == {"rows.jsonl", "arc_results.json", "submission.json"}
    assert set(json.loads((out / "submission.json").read_text())) == {"evalu0", "evalu1"}

    found = evaluate_solver(solver, workspace=puzzle_lab.workspace, data_path=ARC).as_json()
    assert found["pass_at_1"] == 0
    # the same names in another order: the same embeddings, and so the same answers
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = replace(solver, card=tiny_card("arc", 30, identifiers=tuple(names[at] for at in order)))
    table = solver.model.puzzle_embedding
    assert table is not None
    before = table.weight.data.clone()
    table.weight.data = before[order]
    again = evaluate_solver(shuffled, workspace=puzzle_lab.workspace, data_path=ARC).as_json()
    table.weight.data = before
    assert {name: value for name, value in again.items() if name != "messages"} == {
        name: value for name, value in found.items() if name != "messages"
    }
    strange = replace(solver, card=tiny_card("arc", 30, identifiers=("<blank>", *(f"{n}x" for n in names[1:]))))
    with pytest.raises(DataError, match="puzzles that tiny has learned no embedding for"):
        evaluate_solver(strange, workspace=puzzle_lab.workspace, data_path=ARC)
    nameless = replace(solver, card=tiny_card("arc", 30))
    assert "by their numbers" in evaluate_solver(nameless, workspace=puzzle_lab.workspace, data_path=ARC).messages[0]
    few = tiny_solver(tiny_card("arc", 30), num_identifiers=2, h_cycles=1, l_cycles=1, halt_max_steps=1)
    with pytest.raises(DataError, match="puzzle identifiers up to .* tiny has learned 2"):
        evaluate_solver(few, workspace=puzzle_lab.workspace, data_path=ARC)
