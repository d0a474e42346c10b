"""The puzzle embedding's update against a loop in float64, with identifiers that occur several times."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrm_engine.optim.sparse_sign import sparse_sign_update


def slow(table: Tensor, identifiers: list[int], gradient: Tensor, lr: float, decay: float) -> Tensor:
    wanted = table.double().clone()
    for row in sorted(set(identifiers)):
        total = sum(gradient[place].double() for place, other in enumerate(identifiers) if other == row)
        wanted[row] = wanted[row] * (1 - lr * decay) - lr * torch.sign(total)
    return wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.integers(1, 4),
    st.floats(1e-5, 0.5),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(0, 2**31),
)
def test_parity(identifiers: list[int], width: int, lr: float, decay: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    table = torch.randn((6, width), generator=draws)
    # whole numbers: their sums, zero among them, are exact in any order
    gradient = torch.randint(-2, 3, (len(identifiers), width), generator=draws).float()
    wanted = slow(table, identifiers, gradient, lr, decay)
    found = table.clone()
    ids = torch.tensor(identifiers, dtype=torch.int32)
    sparse_sign_update(found, ids, gradient, lr=lr, weight_decay=decay, finite=torch.tensor(True))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    untouched = [row for row in range(6) if row not in identifiers]
    assert torch.equal(found[untouched], table[untouched])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=40), st.integers(0, 2**31))
def test_sums_near_zero_are_the_same_every_time(identifiers: list[int], seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    gradient = torch.randn((len(identifiers), 7), generator=draws)
    gradient[-1] -= gradient.sum(0)
    results = []
    for _ in range(2):
        table = torch.zeros(3, 7)
        sparse_sign_update(
            table, torch.tensor(identifiers), gradient, lr=0.5, weight_decay=0.0, finite=torch.tensor(True)
        )
        assert set(table.abs().flatten().tolist()) <= {0.0, 0.5}
        results.append(table)
    assert torch.equal(*results)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    table = torch.randn(4, 3)
    first = table.clone()
    gradient = torch.full((2, 3), float("nan"))
    sparse_sign_update(table, torch.tensor([1, 1]), gradient, lr=0.1, weight_decay=1.0, finite=torch.tensor(False))
    assert torch.equal(table, first)


def test_the_rate_may_be_on_the_device() -> None:
    plain, on_device = torch.ones(2, 3), torch.ones(2, 3)
    gradient, ids, yes = torch.ones(1, 3), torch.tensor([1]), torch.tensor(True)
    sparse_sign_update(plain, ids, gradient, lr=0.25, weight_decay=0.5, finite=yes)
    sparse_sign_update(on_device, ids, gradient, lr=torch.tensor(0.25), weight_decay=0.5, finite=yes)
    assert torch.equal(plain, on_device)
    assert plain[1].tolist() == [0.625] * 3
