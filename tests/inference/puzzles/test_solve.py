"""Solving: slots with refill, several starts and who of them answers, restarts, and what it costs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.data.puzzles.arc.augment import Augmentation, parse_identifier
from hrm_engine.data.puzzles.arc.grids import crop, encode
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.inference import Solutions, solve, trace
from hrm_engine.inference.puzzles.starts import Attempts, board_views, chosen_starts
from hrm_engine.inference.puzzles.thinking import Thinker
from hrm_engine.models.flops import flops_per_segment
from tests.tiny_solvers import copying_solver, sudokus, tiny_card, tiny_solver

RULES = ("first_to_halt", "majority", "lowest_residual", "q_weighted")
INPUTS, LABELS = sudokus(11)


def same(one: Solutions, other: Solutions, *, but: tuple[str, ...] = ()) -> None:
    for field in fields(Solutions):
        if field.name not in but:
            left, right = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_allclose(left, right, rtol=1e-9, err_msg=field.name)


def joined(parts: list[Solutions]) -> dict[str, Any]:
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("answers", "segments", "start")}


@pytest.mark.parametrize("choose", RULES)
@pytest.mark.parametrize(("starts", "starts_from"), [(1, "noise"), (3, "symmetries"), (3, "noise")])
def test_refill_gives_what_solving_one_by_one_gives(choose: Any, starts: int, starts_from: Any) -> None:
    bundle = tiny_solver()
    how: dict[str, Any] = {"starts": starts, "starts_from": starts_from, "choose": choose}
    together = solve(bundle, INPUTS, batch_size=4, **how)
    alone = joined([solve(bundle, row[None], batch_size=1, **how) for row in INPUTS])
    if starts == 1:
        assert len(set(together.depth)) > 2, "these puzzles shall halt at different depths"
    np.testing.assert_array_equal(together.answers, alone["answers"])
    np.testing.assert_array_equal(together.start, alone["start"])
    if choose == "first_to_halt" and starts > 1:
        # alone in one slot, a start that began first may have thought longer than the one that halts first
        assert together.segments.sum() <= alone["segments"].sum()
    else:
        np.testing.assert_array_equal(together.segments, alone["segments"])


def test_refill_spares_the_slots_that_would_wait() -> None:
    bundle = tiny_solver()
    found = solve(bundle, INPUTS, batch_size=4)
    assert found.segments.sum() == found.depth.sum() < bundle.config.halt_max_steps * len(INPUTS)
    waves = sum(found.depth[start : start + 4].max() for start in range(0, len(INPUTS), 4))
    assert found.wall_segments <= waves
    same(found, solve(bundle, INPUTS, batch_size=100), but=("wall_segments",))
    assert found.flops == flops_per_segment(bundle.config) * found.segments.sum()


@pytest.mark.parametrize("arch", ["trm", "hrm", "trm-mlp"])
@pytest.mark.parametrize("num_latents", [1, 3])
def test_one_start_is_what_a_trace_shows(arch: str, num_latents: int) -> None:
    bundle = tiny_solver(arch=arch, num_latents=num_latents)
    found = solve(bundle, INPUTS, segments=5)
    for row, board in enumerate(INPUTS):
        seen = trace(bundle, board, segments=5)
        np.testing.assert_array_equal(found.answers[row], seen.answer)
        assert found.depth[row] == (seen.halted_at or 5)
        assert found.halted[row] == (seen.halted_at is not None)
        assert found.confidence[row] == pytest.approx(seen.segments[found.depth[row] - 1].q_halt)


def test_the_first_start_to_halt_answers() -> None:
    bundle = tiny_solver()
    found = solve(bundle, INPUTS, starts=4, batch_size=5)
    ids = np.zeros(1, dtype=np.int64)
    views = board_views(bundle, ids, "symmetries", 4)
    winners = set()
    for row, board in enumerate(INPUTS):
        traces = [trace(bundle, views.look(board[None], ids, np.array([start]))[0][0]) for start in range(4)]
        ends = [seen.halted_at or 99 for seen in traces]
        assert min(ends) < 99
        assert found.depth[row] == min(ends) == ends[found.start[row]]
        answer = views.undo(traces[found.start[row]].answer[None], ids, found.start[row : row + 1])[0]
        np.testing.assert_array_equal(found.answers[row], answer)
        assert found.halted[row]
        winners.add(int(found.start[row]))
    assert len(winners) > 1


def test_starts_are_dropped_when_another_has_halted() -> None:
    bundle = tiny_solver()
    raced = solve(bundle, INPUTS, starts=4, batch_size=4 * len(INPUTS))
    np.testing.assert_array_equal(raced.segments, 4 * raced.depth)
    assert raced.segments.sum() < solve(bundle, INPUTS, starts=4, choose="majority").segments.sum()


def test_where_none_halts_the_surest_answers() -> None:
    bundle = tiny_solver()
    found = solve(bundle, INPUTS, starts=3, starts_from="noise", halt_confidence=1.0)
    assert not found.halted.any()
    assert set(found.depth) == {8}
    by_start = [solve(bundle, INPUTS, starts=n, starts_from="noise", halt_confidence=1.0) for n in (1, 2)]
    assert (found.confidence >= by_start[1].confidence - 1e-9).all()
    assert (by_start[1].confidence >= by_start[0].confidence - 1e-9).all()


def attempts(**changes: Any) -> Attempts:
    boards = np.array([[[1, 1], [2, 2], [2, 2], [3, 3]]])
    given: dict[str, Any] = {
        "answers": boards,
        "segments": np.array([[5, 3, 4, 3]]),
        "halted": np.ones((1, 4), dtype=bool),
        "confidence": np.array([[0.95, 0.3, 0.4, 0.5]]),
        "residual": np.array([[0.3, 0.2, 0.4, 0.1]]),
        **changes,
    }
    return Attempts(**given)


@pytest.mark.parametrize(
    ("choose", "changes", "winner"),
    [
        ("first_to_halt", {}, 3),  # as early as start 1, and surer
        ("first_to_halt", {"halted": np.array([[True, False, True, False]])}, 2),
        ("first_to_halt", {"halted": np.zeros((1, 4), dtype=bool)}, 0),
        ("majority", {}, 2),  # the surer of the two that agree
        ("q_weighted", {}, 0),  # 0.95 against 0.3 + 0.4
        ("q_weighted", {"confidence": np.array([[0.65, 0.3, 0.4, 0.5]])}, 2),
        ("lowest_residual", {}, 3),
    ],
)
def test_choosing(choose: Any, changes: dict[str, Any], winner: int) -> None:
    assert chosen_starts(attempts(**changes), choose).tolist() == [winner]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([("sudoku", 4), ("sudoku", 6), ("sudoku", 9), ("maze", 7)]), st.integers(0, 2**32 - 1))
def test_symmetries_are_undone_exactly(board: tuple[str, int], seed: int) -> None:
    kind, side = board
    bundle = PuzzleBundle(path=None, config=None, model=None, metadata={}, card=tiny_card(kind, side))  # type: ignore[arg-type]
    drawn = np.random.default_rng(seed).integers(0, bundle.card.vocab_size, (8, side * side))
    starts, ids = np.arange(8), np.zeros(8, dtype=np.int64)
    views = board_views(bundle, ids, "symmetries", 8)
    there, _ = views.look(drawn, ids, starts)
    np.testing.assert_array_equal(views.undo(there, ids, starts), drawn)
    np.testing.assert_array_equal(there[0], drawn[0])
    assert all((there[start] != drawn[start]).any() for start in range(1, 8))


def test_symmetries_keep_puzzles_what_they_are() -> None:
    bundle, ids, starts = tiny_solver(), np.zeros(11, dtype=np.int64), np.arange(11)
    views = board_views(bundle, ids, "symmetries", 11)
    seen, solved = (views.look(boards, ids, starts)[0] for boards in (INPUTS, LABELS))
    assert BOARDS["sudoku"].are_valid(seen, solved).all()


def test_arc_starts_are_the_augmentations_of_the_task() -> None:
    augmentations = [Augmentation(3, "0217654983"), Augmentation(6, "0123456789"), Augmentation(0, "0987654321")]
    names = ("<blank>", "one", "two", *(augmentation.identifier("two") for augmentation in augmentations))
    card = tiny_card("arc", 30, identifiers=names)
    bundle = tiny_solver(card, num_identifiers=6, hidden_size=16, arch="hrm", halt_max_steps=2)
    grids = [np.arange(12, dtype=np.uint8).reshape(3, 4) % 10, np.eye(5, dtype=np.uint8)]
    boards, ids, starts = np.stack([encode(grid) for grid in grids]), np.array([2, 2]), np.array([1, 3])
    views = board_views(bundle, ids, "symmetries", 4)
    seen, numbers = views.look(boards, ids, starts)
    assert numbers.tolist() == [3, 5]
    for row, number in enumerate(numbers):
        assert parse_identifier(names[number])[0] == "two"
        np.testing.assert_array_equal(crop(seen[row]), parse_identifier(names[number])[1].apply(grids[row]))
    np.testing.assert_array_equal(views.undo(seen, ids, starts), boards)
    found = solve(bundle, boards, identifiers=ids, starts=2, segments=1, choose="majority")
    assert found.is_valid is None
    assert found.segments.tolist() == [2, 2]
    with pytest.raises(ConfigError, match=r"5 starts: task two was trained on in 4 variants"):
        solve(bundle, boards, identifiers=ids, starts=5)


def test_restarts_go_on_until_the_rules_agree() -> None:
    bundle = copying_solver()
    one_blank = LABELS[:6].copy()
    one_blank[np.arange(6), [0, 3, 5, 8, 10, 15]] = 1
    given = np.concatenate([one_blank, LABELS[6:8]])
    before = solve(bundle, given, starts_from="noise")
    assert before.is_valid is not None
    assert before.is_valid[6:].all()
    assert not before.is_valid.all()
    after = solve(bundle, given, starts_from="noise", until_valid=60)
    assert after.is_valid is not None
    assert after.is_valid.all()
    np.testing.assert_array_equal(after.answers, LABELS[:8])
    np.testing.assert_array_equal(after.solved_by_verifier, ~before.is_valid)
    np.testing.assert_array_equal(after.restarts > 0, ~before.is_valid)
    np.testing.assert_array_equal(after.segments, before.segments)
    np.testing.assert_array_equal(after.restart_segments, after.restarts)  # it halts after one segment
    assert after.flops == flops_per_segment(bundle.config) * (after.segments.sum() + after.restarts.sum())
    few = solve(bundle, given, starts_from="noise", until_valid=1)
    assert few.restarts.max() == 1


def test_without_halting_every_start_thinks_to_the_end() -> None:
    bundle = tiny_solver()
    found = solve(bundle, INPUTS, starts=2, segments=4, halting=False, choose="lowest_residual")
    assert set(found.segments) == {8}
    assert not found.halted.any()


def test_noise_of_a_start_does_not_depend_on_its_company() -> None:
    bundle = tiny_solver(initial_state="noise")
    together = solve(bundle, INPUTS, starts=2, starts_from="noise", choose="majority")
    for row in (0, 5):
        alone = solve(bundle, INPUTS[row : row + 1], starts=2, starts_from="noise", choose="majority")
        np.testing.assert_array_equal(alone.answers[0], together.answers[row])
        np.testing.assert_array_equal(trace(bundle, INPUTS[row]).answer, solve(bundle, INPUTS[row][None]).answers[0])


class Products(TorchDispatchMode):
    """Counts the FLOPs of matrix products as torch makes them."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            self.flops += 2 * out.numel() * args[-2].shape[-1]
        return out


@pytest.mark.parametrize("arch", ["hrm", "trm", "trm-mlp", "trm-fast", "transformer"])
@pytest.mark.parametrize("num_latents", [1, 2])
def test_flops_are_those_of_the_products_that_torch_makes(arch: str, num_latents: int) -> None:
    depth = {} if arch != "transformer" else {"halt_max_steps": 1, "l_cycles": 0}
    bundle = tiny_solver(arch=arch, num_latents=num_latents, **depth)
    thinker = Thinker(bundle.model)
    x = thinker.embed(torch.from_numpy(INPUTS[:3]), torch.zeros(3))
    carry = bundle.model.initial_carry(x)
    with Products() as counted, torch.no_grad():
        thinker.think(carry, x)
    # a model is asked for the logits of the surest latent alone; the estimate has them of all
    heads = (num_latents - 1) * 2 * 32 * 16 * 6
    assert counted.flops == 3 * (flops_per_segment(bundle.config) - heads)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"segments": 0}, "--segments 0: must be at least 1"),
        ({"segments": 65}, "--segments 65: must be at most 64"),
        ({"starts": 0}, "--starts 0: must be at least 1"),
        ({"starts": 65}, "--starts 65: must be at most 64"),
        ({"until_valid": -1}, "--until-valid -1: "),
        ({"choose": "best"}, "--choose best: use first_to_halt, majority"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"halt_confidence": 1.5}, "--halt-confidence 1.5: "),
        ({"starts": 2, "halting": False}, "use majority"),
        ({"identifiers": np.array([1] * 11)}, "knows the puzzle identifiers 0 to 0"),
        ({"identifiers": np.array([0])}, "each board needs one"),
    ],
)
def test_wrong_settings_are_refused(how: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        solve(tiny_solver(), INPUTS, **how)


def test_boards_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"boards of 4 x 4, 16 cells; given were 81"):
        solve(tiny_solver(), np.ones((1, 81), dtype=np.uint8))
    with pytest.raises(DataError, match=r"tokens 0 to 5; given were 1 to 9"):
        solve(tiny_solver(), np.array([[1] * 15 + [9]]))
    with pytest.raises(ConfigError, match="a maze has 8 symmetries"):
        solve(tiny_solver(tiny_card("maze", 5)), np.ones((1, 25), dtype=np.uint8), starts=9)
    with pytest.raises(ConfigError, match="not for the other boards"):
        solve(tiny_solver(tiny_card("other", 4)), np.ones((1, 16), dtype=np.uint8), starts=2)
    with pytest.raises(ConfigError, match="other boards have none"):
        solve(tiny_solver(tiny_card("other", 4)), np.ones((1, 16), dtype=np.uint8), until_valid=2)
    with pytest.raises(ConfigError, match="say which of its tasks"):
        solve(tiny_solver(tiny_card("arc", 5)), np.ones((1, 25), dtype=np.uint8))
