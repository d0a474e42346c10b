"""The arithmetic of the bench: what a step's matrix products cost at least."""

from __future__ import annotations

import pytest

from bench.hrm_step import step_flops
from bench.hrm_stepper import SEQ_LEN, VOCABULARY
from hrm_engine.config import CoreConfig, resolve_puzzle_core
from hrm_engine.config.puzzle_network import PuzzleNetworkConfig

WIDTH, INNER, LENGTH = 512, 1536, SEQ_LEN + 1


def published(*, q_continue: bool) -> CoreConfig:
    network = PuzzleNetworkConfig(arch="hrm", q_continue=q_continue)
    return resolve_puzzle_core(network, vocab_size=VOCABULARY, seq_len=SEQ_LEN, num_identifiers=1)


@pytest.mark.parametrize("q_continue", [True, False])
def test_products_of_a_step_counted_one_by_one(q_continue: bool) -> None:
    """Six calls of four layers, the last two backward too; for the target six more, the last layer at one place."""
    position = 4 * WIDTH**2 + 3 * WIDTH * INNER + 2 * LENGTH * WIDTH
    whole = LENGTH * position
    narrow = position + 2 * (LENGTH - 1) * WIDTH**2
    heads = 3 * WIDTH * (SEQ_LEN * VOCABULARY + (2 if q_continue else 1))
    multiplications = 24 * whole + 2 * 8 * whole + heads + (23 * whole + narrow if q_continue else 0)
    assert step_flops(published(q_continue=q_continue)) == pytest.approx(2 * multiplications)
