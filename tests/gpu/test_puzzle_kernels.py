"""Puzzle kernels on a CUDA device: equal to their float64 references, and silent towards the host."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.kernels.attention import attention, attention_reference, plan_attention
from hrm_engine.kernels.losses import IGNORE
from hrm_engine.kernels.stablemax import score_sequences, stablemax_losses, stablemax_losses_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("queries", [82, 1])
def test_attention_to_all_positions(dtype: torch.dtype, tolerance: float, queries: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, size, 8, 64, device=CUDA, dtype=dtype) for size in (queries, 82, 82))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    plan = plan_attention(num_queries=queries, num_keys=82, device=CUDA, dtype=dtype, causal=False)
    found = attention(q, k, v, plan)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted = attention_reference(*wide, plan)
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)
    weight = torch.randn_like(wanted)
    ours = torch.autograd.grad((found * weight.to(dtype)).sum(), (q, k, v))
    theirs = torch.autograd.grad((wanted * weight).sum(), wide)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, atol=3 * tolerance, rtol=3 * tolerance)


@pytest.mark.parametrize("compiled", [False, True])
def test_stablemax_equals_its_equation(compiled: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 81, 11, device=CUDA, requires_grad=True)
    labels = torch.randint(0, 11, (8, 81), device=CUDA)
    labels[:, ::5] = IGNORE
    form = torch.compile(stablemax_losses, dynamic=False) if compiled else stablemax_losses
    wide = logits.detach().double().requires_grad_()
    found, wanted = form(logits, labels), stablemax_losses_reference(wide, labels)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-9)
    ours, theirs = torch.autograd.grad(found.sum(), logits)[0], torch.autograd.grad(wanted.sum(), wide)[0]
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["stablemax", "softmax"])
def test_scores_do_not_wait_for_the_device(kind: str) -> None:
    logits = torch.randn(8, 81, 11, device=CUDA, requires_grad=True)
    labels = torch.randint(0, 11, (8, 81), device=CUDA)
    score_sequences(logits, labels, kind=kind).loss.sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        score_sequences(logits, labels, kind=kind, label_smoothing=0.2).loss.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
