"""What the last layer leaves out for position 0 alone changes nothing there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hrm_engine.models.core import Carry
from tests.models.tiny import tiny_core
from tests.parity.solvers import CELLS, NETWORKS, VOCAB, make_core

MORE: dict[str, dict[str, Any]] = {
    "trm-mlp-q-learning": {"arch": "trm-mlp", "puzzle_tokens": 1, "q_continue": True, "h_layers": 2},
    "trm-fast-q-learning": {"arch": "trm-fast", "puzzle_tokens": 1, "q_continue": True, "h_layers": 2},
}


@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
def test_the_first_position_alone_is_that_of_the_whole(name: str) -> None:
    core = make_core(**{**NETWORKS, **MORE}[name])
    generator = torch.Generator().manual_seed(5)
    shape = (3 * core.config.num_latents, core.config.max_seq_len, core.config.hidden_size)
    states = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    x, carry = next(states), Carry(*states)
    context = core.context(torch.arange(core.config.max_seq_len)[None])
    with torch.no_grad():
        whole, first = (core.segment(carry, x, context, first_only=only) for only in (False, True))
    assert first.z_h.shape[1] == 1
    assert core.config.max_seq_len >= CELLS
    torch.testing.assert_close(first.z_h, whole.z_h[:, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(first.z_l, whole.z_l, rtol=0, atol=0)


def test_documents_and_windows_are_kept() -> None:
    """A plan with masks: the first query sees what it saw."""
    core = tiny_core("hrm-text").double()
    tokens = torch.randint(VOCAB, (2, 8), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[0] * 8, [0, 0, 0, 1, 1, 1, 1, 1]])
    positions = torch.arange(8)[None]
    context = core.context(positions, documents=documents)
    x = core.embed(tokens, positions)
    with torch.no_grad():
        whole, first = (core.segment(core.initial_carry(x), x, context, first_only=only) for only in (False, True))
    torch.testing.assert_close(first.z_h, whole.z_h[:, :1], rtol=0, atol=1e-12)
