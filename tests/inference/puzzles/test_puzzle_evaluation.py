"""Evaluation of puzzles: means over labelled cells, and boards whose answer nobody knows."""

from __future__ import annotations

import torch

from hrm_engine.inference.puzzles.evaluate import evaluate_puzzles
from hrm_engine.models.slots import Objective
from tests.tiny_solvers import as_rows, sudokus, tiny_solver


def test_boards_without_labels_are_not_solved() -> None:
    """The test rows of ARC with a hidden answer have labels of padding alone."""
    core = tiny_solver().model
    inputs, labels = sudokus(3)
    guessed = evaluate_puzzles(core, [as_rows(inputs, labels)], Objective(), num_segments=2).predictions
    labels[0] = guessed[0]
    labels[1] = 0
    labels[2, :4] = 0
    labels[2, 4:] = guessed[2, 4:]
    labels[2, 5] = 2 + (int(guessed[2, 5]) - 1) % 4
    found = evaluate_puzzles(core, [as_rows(inputs, labels)], Objective(), num_segments=2)
    assert found.exact[:, -1].tolist() == [bool(guessed[0].any()), False, False]
    assert found.loss[1] == 0
    assert found.cells[1].tolist() == [0, 0]
    one = evaluate_puzzles(core, [as_rows(inputs[2:], labels[2:])], Objective(), num_segments=2)
    torch.testing.assert_close(torch.from_numpy(found.loss[2:]), torch.from_numpy(one.loss))
    assert found.cells[2, -1] == one.cells[0, -1]
