"""The product inside a SwiGLU against autograd's, and what it keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hrm_engine.kernels.swiglu import swiglu


def pair(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    gate, value, weight = (torch.randn(5, 24, generator=generator).to(dtype) * 3 for _ in range(3))
    return gate.requires_grad_(), value.requires_grad_(), weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_gradients_are_those_of_autograd(dtype: torch.dtype) -> None:
    gate, value, weight = pair(dtype)
    ours, theirs = swiglu(gate, value), F.silu(gate) * value
    assert torch.equal(ours, theirs)
    for mine, wanted in zip(
        torch.autograd.grad((ours * weight).sum(), (gate, value)),
        torch.autograd.grad((theirs * weight).sum(), (gate, value)),
        strict=True,
    ):
        assert torch.equal(mine, wanted)


def test_gradients_against_differences() -> None:
    gate, value, _ = pair(torch.float64)
    assert torch.autograd.gradcheck(swiglu, (gate, value))


def test_two_tensors_are_kept() -> None:
    gate, value, _ = pair(torch.float32)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        swiglu(gate, value)
    assert [id(tensor.untyped_storage()) for tensor in kept] == [id(x.untyped_storage()) for x in (gate, value)]


def test_without_gradients_nothing_is_kept() -> None:
    gate, value, _ = pair(torch.float32)
    with torch.no_grad():
        out = swiglu(gate, value)
    assert not out.requires_grad
    assert torch.equal(out, F.silu(gate) * value)
