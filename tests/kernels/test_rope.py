"""Rotary positions: the angles, and that only distances matter."""

from __future__ import annotations

import math

import pytest
import torch

from hrm_engine.kernels.rope import rope_tables, rotate

SIZE = 8


def test_tables_hold_the_angles() -> None:
    positions = torch.tensor([[0, 1, 5], [2, 0, 1000]])
    cos, sin = rope_tables(positions, SIZE, 10000.0, torch.float64)
    assert cos.shape == sin.shape == (2, 3, 1, SIZE)
    for row, places in enumerate(positions.tolist()):
        for column, place in enumerate(places):
            for index in range(SIZE):
                angle = place * 10000.0 ** (-2 * (index % (SIZE // 2)) / SIZE)
                assert cos[row, column, 0, index].item() == pytest.approx(math.cos(angle), abs=1e-12)
                assert sin[row, column, 0, index].item() == pytest.approx(math.sin(angle), abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-3)])
def test_narrow_tables_have_wide_angles(dtype: torch.dtype, tolerance: float) -> None:
    """At position 3999 a bf16 angle would be off by whole turns."""
    positions = torch.tensor([[0, 17, 3999]])
    for narrow, exact in zip(
        rope_tables(positions, 16, 10000.0, dtype), rope_tables(positions, 16, 10000.0, torch.float64), strict=True
    ):
        assert narrow.dtype is dtype
        torch.testing.assert_close(narrow.double(), exact, rtol=0, atol=tolerance)


def test_a_turn_by_hand() -> None:
    """Halves are turned against each other: element i with element i + K/2."""
    x = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    x[..., 0], x[..., 2] = 2.0, 3.0
    cos, sin = rope_tables(torch.tensor([[1]]), 4, 10000.0, torch.float64)
    found = rotate(x, cos, sin)[0, 0, 0]
    wanted = [2 * math.cos(1) - 3 * math.sin(1), 0.0, 2 * math.sin(1) + 3 * math.cos(1), 0.0]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-14)


def test_position_0_leaves_the_vector_and_no_position_changes_its_length() -> None:
    x = torch.randn(2, 5, 3, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = rope_tables(torch.arange(5)[None], SIZE, 10000.0, torch.float64)
    turned = rotate(x, cos, sin)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert not torch.allclose(turned[:, 1:], x[:, 1:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shift", [1, 7, 500])
def test_products_depend_on_the_distance_alone(shift: int) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 6, 2, SIZE, dtype=torch.float64, generator=generator) for _ in range(2))

    def products(first: int) -> torch.Tensor:
        cos, sin = rope_tables(torch.arange(first, first + 6)[None], SIZE, 10000.0, torch.float64)
        return torch.einsum("bsnk,btnk->bnst", rotate(q, cos, sin), rotate(k, cos, sin))

    torch.testing.assert_close(products(shift), products(0), rtol=0, atol=1e-10)
    equal = torch.ones(1, 6, 2, SIZE, dtype=torch.float64)
    cos, sin = rope_tables(torch.arange(6)[None], SIZE, 10000.0, torch.float64)
    turned = rotate(equal, cos, sin)[0, :, 0]
    assert not math.isclose((turned[0] * turned[1]).sum().item(), (turned[0] * turned[2]).sum().item())


@pytest.mark.parametrize("size", [2, 8])
def test_the_form_for_compilers_is_the_one_that_runs_on_a_cpu(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    x, weight = (torch.randn(2, 5, 3, size, dtype=torch.float64, generator=generator) for _ in range(2))
    x.requires_grad_()
    cos, sin = rope_tables(torch.randint(9, (2, 5), generator=generator), size, 10000.0, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        turned = rotate(x, cos, sin)
        found.append((turned, torch.autograd.grad((turned * weight).sum(), x)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-14)
