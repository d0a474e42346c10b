"""Experts: the sorted, blockwise form against every expert for every token, in float64, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrm_engine.kernels import experts as kernels
from hrm_engine.kernels.experts import experts, experts_reference


def problem(seed: int, tokens: int, k: int, num: int, width: int, inner: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    chosen = torch.rand(tokens, num, generator=generator).argsort(1)[:, :k]
    weights = draw(tokens, k).softmax(-1)
    return [
        draw(tokens, width), chosen, weights, draw(num, inner, width), draw(num, inner, width), draw(num, width, inner)
    ]  # fmt: skip


def both(given_to: list[Tensor], kept: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of all that has one, of the fast form and of the reference."""
    found = []
    for form in (experts, experts_reference):
        x, chosen, weights, *matrices = (t.clone().requires_grad_() if t.is_floating_point() else t for t in given_to)
        y = form(x, chosen, weights, kept, *matrices)
        grads = torch.autograd.grad((y * torch.arange(y.numel(), device=y.device).view(y.shape).cos()).sum(),
                                    [x, weights, *matrices])  # fmt: skip
        found.append([y.detach(), *grads])
    return found[0], found[1]


@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 120),
    num=st.integers(1, 6),
    k=st.integers(1, 3),
    drop=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_blocks_equal_the_reference(seed: int, tokens: int, num: int, k: int, drop: bool) -> None:
    numbers = problem(seed, tokens, min(k, num), num, 6, 5, torch.float64)
    kept = torch.rand(tokens, min(k, num), generator=torch.Generator().manual_seed(seed)) < 0.6 if drop else None
    fast, slow = both(numbers, kept)
    for mine, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_an_expert_without_tokens_gets_a_zero_gradient() -> None:
    numbers = problem(0, 8, 1, 3, 4, 4, torch.float64)
    numbers[1] = torch.zeros_like(numbers[1])
    fast, _ = both(numbers, None)
    assert all(not grad[1:].any() for grad in fast[3:])
    assert all(grad[0].any() for grad in fast[3:])


def test_blocks_have_few_sizes_where_tokens_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    # A program that is made for each shape takes time, and stays in memory: nearly every product was a new one.
    sizes, product = set(), kernels.grouped_product

    def watched(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        sizes.update(ends.diff(prepend=ends.new_zeros(1)).tolist())
        return product(rows, weight, ends)

    monkeypatch.setattr(kernels, "grouped_product", watched)
    for seed in range(10):
        numbers = problem(seed, 512, 2, 4, 4, 4, torch.float32)
        fast, slow = both(numbers, torch.rand(512, 2, generator=torch.Generator().manual_seed(seed)) < 0.9)
        torch.testing.assert_close(fast[0], slow[0])
    assert all(size % 32 == 0 for size in sizes)
    assert len(sizes) < 5


def test_it_compiles_as_one_graph() -> None:
    numbers = problem(1, 12, 2, 4, 8, 8, torch.float32)
    compiled = torch.compile(experts, fullgraph=True, dynamic=False, backend="aot_eager")
    x = numbers[0].clone().requires_grad_()
    y = compiled(x, numbers[1], numbers[2], None, *numbers[3:])
    y.sum().backward()
    torch.testing.assert_close(y, experts_reference(x, numbers[1], numbers[2], None, *numbers[3:]))
    assert x.grad is not None


@pytest.mark.gpu
def test_on_a_gpu_in_bf16() -> None:
    numbers = [t.cuda() for t in problem(2, 256, 2, 8, 64, 64, torch.bfloat16)]
    kept = torch.rand(256, 2, device="cuda") < 0.8
    fast, slow = both(numbers, kept)
    for mine, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine.float(), expected.float(), rtol=0.05, atol=0.5)


def test_the_products_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`F.grouped_mm`, which a GPU takes, has a form for the CPU too: equal products, gradients, empty experts."""
    numbers = problem(1, 24, 2, 6, 16, 32, torch.float32)
    numbers[1] = numbers[1].clamp_max(4)
    numbers[1][:, 1] = 5
    numbers[1][:, 0] = numbers[1][:, 0].clamp_max(3)
    taken = []

    def grouped(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        taken.append(ends.tolist())
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)

    monkeypatch.setattr(kernels, "_blocks", grouped)
    fast, slow = both(numbers, None)
    assert len(taken) == 3
    assert taken[0][4] == taken[0][3], "the fifth expert has no token"
    for mine, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
