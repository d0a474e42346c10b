"""RMS norm against its equation."""

from __future__ import annotations

import math

import pytest
import torch

from hrm_engine.kernels.norm import rms_norm, rms_norm_reference


@pytest.mark.parametrize("form", [rms_norm, rms_norm_reference])
@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
def test_the_equation(form, eps: float) -> None:
    x = torch.tensor([[3.0, -4.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1e-3, 0.0, 0.0, 0.0]], dtype=torch.float64)
    wanted = [[v / math.sqrt(sum(u * u for u in row) / 4 + eps) for v in row] for row in x.tolist()]
    torch.testing.assert_close(form(x, eps), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_the_fast_form_is_the_reference(dtype: torch.dtype, size: float) -> None:
    """300 squared is more than fp16 holds: the statistics are taken in a wider type."""
    x = (torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * size).to(dtype)
    fast, slow = rms_norm(x, 1e-5), rms_norm_reference(x, 1e-5)
    assert fast.dtype is dtype
    assert slow.dtype is dtype
    assert fast.isfinite().all()
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, 2e-2)
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    exact = rms_norm_reference(x.double(), 1e-5)
    torch.testing.assert_close(slow.double(), exact, rtol=tolerance, atol=tolerance)


def test_gradients() -> None:
    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, 1e-5), (x,))
    weight = torch.arange(24.0, dtype=torch.float64).view(3, 8)
    ours = torch.autograd.grad((rms_norm(x, 1e-5) * weight).sum(), x)[0]
    theirs = torch.autograd.grad((rms_norm_reference(x, 1e-5) * weight).sum(), x)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_form_that_runs_on_a_cpu_is_the_librarys(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On rows that do not lie one after the other in memory, too: norms along the positions are taken of such."""
    x = torch.randn(3, 8, 4, dtype=dtype, generator=torch.Generator().manual_seed(1)).mT.requires_grad_()
    weight = torch.arange(96.0, dtype=dtype).view(3, 4, 8) - 40
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        y = rms_norm(x, 1e-5)
        found.append((y, torch.autograd.grad((y * weight).sum(), x)[0]))
    tolerance = 1e-13 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=tolerance)
