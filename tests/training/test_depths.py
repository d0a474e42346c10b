"""What is drawn for a step of text: how many segments it runs, and where positions stop early."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrm_engine.config.text import DepthConfig
from hrm_engine.data.text.packing import IGNORE, Batch
from hrm_engine.errors import ConfigError
from hrm_engine.training.tasks.text_rows import StepRows, step_rows
from tests.tiny_runs import Lab, assert_same_end, row_of, rows

LENGTH, ROWS = 12, 6


def parts(*sizes: int) -> list[Batch]:
    labels = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH)
    labels[:, -2:] = IGNORE
    zeros = torch.zeros(ROWS, LENGTH, dtype=torch.int32)
    whole = Batch(labels.clamp_min(0), labels, zeros, torch.arange(LENGTH).expand(ROWS, LENGTH))
    cut = [part.split(sizes) for part in (whole.inputs, whole.labels, whole.documents, whole.positions)]
    return [Batch(*tensors) for tensors in zip(*cut, strict=True)]


def drawn(position: int, *sizes: int, most: int = 4, **depth: object) -> StepRows:
    config = DepthConfig.model_validate(depth)
    return step_rows(parts(*(sizes or (ROWS,))), depth=config, num_segments=most, seed=1, position=position)


def test_all_segments_everywhere_unless_told_otherwise() -> None:
    found = drawn(0, freeze_positions=0)
    assert (found.num_segments, found.num_tokens, found.token_segments) == (4, ROWS * 10, 4 * ROWS * 10)
    assert found.depths is None
    assert drawn(0, most=1, freeze_positions=1).depths is None  # one segment: nowhere to stop


def test_segments_are_drawn_evenly() -> None:
    counts = np.bincount([drawn(p, sample_segments=True, freeze_positions=0).num_segments for p in range(400)])
    assert counts[0] == 0
    assert len(counts) == 5
    assert counts[1:].min() > 70


def test_in_half_of_the_steps_random_positions_stop_at_random_segments() -> None:
    steps = [drawn(position) for position in range(200)]
    stopping = [step for step in steps if step.depths is not None]
    assert 70 < len(stopping) < 130
    depths = torch.stack([step.depths[0] for step in stopping if step.depths])
    assert set(depths.flatten().tolist()) == {1, 2, 3, 4}
    stops = depths < 4
    assert 0.4 < stops.double().mean() < 0.6
    shares = stops.double().mean(-1).flatten()  # of each row
    assert shares.min() < 0.1
    assert shares.max() > 0.9
    early = torch.bincount(depths[stops])[1:]
    assert early.min() > 0.8 * early.max()
    for step in stopping:
        assert step.depths is not None
        assert step.token_segments == int(step.depths[0][step.parts[0].labels != IGNORE].sum())
        assert step.num_tokens == ROWS * 10


@pytest.mark.parametrize("sizes", [(1, 5), (2, 2, 2), (1, 1, 1, 1, 1, 1)], ids=str)
def test_micro_batches_do_not_change_what_is_drawn(sizes: tuple[int, ...]) -> None:
    whole, cut = (drawn(3, *size, freeze_positions=1) for size in ((), sizes))
    assert replace(whole, parts=[], depths=None) == replace(cut, parts=[], depths=None)
    assert whole.depths is not None
    assert cut.depths is not None
    assert [len(part) for part in cut.depths] == list(sizes)
    assert torch.equal(torch.cat(cut.depths), whole.depths[0])


def test_a_training_with_drawn_depths_is_resumed_exactly(lab: Lab) -> None:
    how = {"halt_max_steps": 3, "sample_segments": True, "freeze_positions": 0.8, "steps": 6, "save_every": 2}
    straight = lab.train("straight", **how)
    lab.interrupted("again", 3, **how)
    resumed = lab.resume("again")
    assert_same_end(straight.run_dir, resumed.run_dir)
    train = [row for row in rows(straight.run_dir) if row["event"] == "train"]
    assert len({row["act_steps_mean"] for row in train}) > 2
    assert train[-1]["token_segments"] == pytest.approx(sum(row["act_steps_mean"] * t for row, t in _fresh(train)))
    evaluation = row_of(straight.run_dir, "eval")
    assert 1 <= evaluation["act_steps_mean"] <= 3
    assert evaluation["adaptive_loss"] > 0


def _fresh(train: list[dict[str, float]]) -> list[tuple[dict[str, float], float]]:
    before = [0.0, *(row["tokens"] for row in train)]
    return [(row, row["tokens"] - earlier) for row, earlier in zip(train, before, strict=False)]


def test_one_segment_leaves_nothing_to_draw(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="--halt-max-steps 2 or more"):
        lab.config(halt_max_steps=1, sample_segments=True)
    result = lab.train("plain", halt_max_steps=1, steps=2)
    assert "adaptive_loss" not in row_of(result.run_dir, "eval")
