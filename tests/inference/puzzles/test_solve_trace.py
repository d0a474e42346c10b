"""A trace: what evaluation sees, segment by segment, and a view of the states."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hrm_engine.errors import ConfigError, DataError
from hrm_engine.inference import principal_components, trace, watch
from hrm_engine.inference.puzzles.evaluate import evaluate_puzzles
from hrm_engine.models.slots import Objective
from tests.tiny_solvers import as_rows, sudokus, tiny_card, tiny_solver

INPUTS, LABELS = sudokus(6)


@pytest.mark.parametrize(("arch", "num_latents"), [("trm", 1), ("hrm", 1), ("trm", 3)])
def test_a_trace_is_what_evaluation_sees(arch: str, num_latents: int) -> None:
    bundle = tiny_solver(arch=arch, num_latents=num_latents)
    evaluated = evaluate_puzzles(bundle.model, [as_rows(INPUTS, LABELS)], Objective(), num_segments=7)
    for row, (board, label) in enumerate(zip(INPUTS, LABELS, strict=True)):
        seen = trace(bundle, board, segments=7)
        assert [segment.number for segment in seen.segments] == list(range(1, 8))
        assert [segment.wants_to_halt for segment in seen.segments] == evaluated.halt[row].tolist()
        np.testing.assert_allclose([s.q_halt for s in seen.segments], evaluated.confidence[row], rtol=1e-9)
        shares = [(segment.prediction == label).mean() for segment in seen.segments]
        np.testing.assert_allclose(shares, evaluated.cells[row], rtol=1e-6)
        np.testing.assert_array_equal(seen.segments[-1].prediction, evaluated.predictions[row])
        assert (seen.halted_at or 7) == evaluated.segments[row]
        assert all((segment.q_continue is None) == (arch == "trm") for segment in seen.segments)


def test_changed_cells_are_those_that_differ_from_the_board_before() -> None:
    seen = trace(tiny_solver(), INPUTS[0])
    before = seen.inputs
    for segment in seen.segments:
        np.testing.assert_array_equal(segment.changed, segment.prediction != before)
        before = segment.prediction
    assert any(segment.changed.any() for segment in seen.segments)


def test_states_are_kept_where_they_are_asked_for() -> None:
    bundle = tiny_solver(dtype=torch.bfloat16, num_latents=2)
    seen = trace(bundle, INPUTS[0], segments=4, keep_states=True)
    states = seen.states("z_h")
    assert states.shape == (4, 17, 32)
    assert states.dtype == torch.float32
    assert not torch.equal(states, seen.states("z_l"))
    with pytest.raises(ValueError, match="keep_states=True"):
        trace(bundle, INPUTS[0], segments=1).states("z_h")


def test_segments_come_one_by_one() -> None:
    coming = watch(tiny_solver(), INPUTS[0], segments=64)
    assert next(coming).number == 1
    assert next(coming).number == 2


def test_json_holds_everything_but_states() -> None:
    seen = trace(tiny_solver(arch="hrm"), INPUTS[0], segments=3, keep_states=True)
    content = json.loads(json.dumps(seen.as_json()))
    assert (content["kind"], content["height"], content["width"]) == ("sudoku", 4, 4)
    assert content["inputs"] == INPUTS[0].tolist()
    assert content["answer"] == seen.answer.tolist()
    assert content["is_valid"] is seen.is_valid is False
    assert len(content["segments"]) == 3
    for segment, written in zip(seen.segments, content["segments"], strict=True):
        assert written["prediction"] == segment.prediction.tolist()
        assert written["changed"] == np.flatnonzero(segment.changed).tolist()
        assert written["q_continue"] == segment.q_continue
        assert written["cell_confidence"] is None  # nobody knows with which loss it was trained


@pytest.mark.parametrize("loss", ["stablemax", "softmax"])
def test_confidence_of_cells_is_that_of_the_loss(tmp_path: Path, loss: str) -> None:
    bundle = tiny_solver()
    card = bundle.card.model_copy(update={"loss": loss})
    placed = replace(bundle, path=tmp_path, card=card)
    seen = trace(placed, INPUTS[0], segments=2)
    evaluated = evaluate_puzzles(
        bundle.model,
        [as_rows(INPUTS[:1], seen.segments[-1].prediction[None])],
        Objective(loss=loss, ignore_label=None),  # type: ignore[arg-type]
        num_segments=2,
    )
    found = seen.segments[-1].cell_confidence
    assert found is not None
    assert -np.log(found).mean() == pytest.approx(evaluated.loss[0], rel=1e-5)


def test_principal_components_keep_distances_in_the_plane() -> None:
    angles = np.linspace(0, 2, 7)
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 2)))[0]
    points = np.stack([3 * np.cos(angles), np.sin(angles)], 1)
    states = (points @ plane.T)[:, None, :].repeat(5, 1)
    found = principal_components(torch.from_numpy(states), num_components=3)
    assert found.shape == (7, 3)
    np.testing.assert_allclose(found[:, 2], 0, atol=1e-9)
    pairs = [np.linalg.norm(some[:, None] - some[None], axis=-1) for some in (points, found)]
    np.testing.assert_allclose(*pairs, atol=1e-9)
    np.testing.assert_allclose(principal_components(-states), principal_components(states) * [1, 1], atol=10)


def test_positions_apart_show_what_cancels_in_the_mean() -> None:
    states = np.zeros((4, 2, 3))
    states[:, 0, 0], states[:, 1, 0] = np.arange(4), -np.arange(4)
    assert np.abs(principal_components(states)).max() == 0
    assert np.ptp(principal_components(states, by_position=True)[:, 0]) == pytest.approx(3 * 2**0.5)
    assert principal_components(states[:1]).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="1 to 3"):
        principal_components(states, num_components=4)
    with pytest.raises(ValueError, match="shape"):
        principal_components(np.zeros(3))


def test_what_cannot_be_traced_is_refused() -> None:
    bundle = tiny_solver()
    with pytest.raises(DataError, match="given were 9"):
        trace(bundle, INPUTS[0][:9])
    with pytest.raises(ConfigError, match="--segments 65"):
        trace(bundle, INPUTS[0], segments=65)
    with pytest.raises(ConfigError, match="knows the puzzle identifiers"):
        trace(bundle, INPUTS[0], identifier=3)
    with pytest.raises(ConfigError, match="say which of its tasks"):
        trace(tiny_solver(tiny_card("arc", 5)), np.ones(25, dtype=np.uint8))
