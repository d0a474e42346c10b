"""Losses of small vocabularies: the definition by hand, float32 against float64, gradients where others break."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrm_engine.kernels.losses import IGNORE
from hrm_engine.kernels.stablemax import (
    log_stablemax,
    score_sequences,
    softmax_losses,
    stablemax_losses,
    stablemax_losses_reference,
)

smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.2])


def rows(vocab: int = 11, *, size: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(4, 9, vocab, generator=generator, dtype=torch.float64) * size
    labels = torch.randint(vocab, (4, 9), generator=generator)
    labels[0, :3] = IGNORE
    labels[3] = IGNORE
    return logits, labels


def by_hand(logits: list[float], label: int, smoothing: float) -> float:
    if label == IGNORE:
        return 0.0
    s = [x + 1 if x >= 0 else 1 / (1 - x) for x in logits]
    total = math.fsum(s)
    share = [(1 - smoothing) * (i == label) + smoothing / len(s) for i in range(len(s))]
    return -math.fsum(t * math.log(v / total) for t, v in zip(share, s, strict=True))


@smoothings
@pytest.mark.parametrize("form", [stablemax_losses, stablemax_losses_reference])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_loss_by_hand(form, smoothing: float, size: float) -> None:
    logits, labels = rows(size=size)
    wanted = [
        [by_hand(x, y, smoothing) for x, y in zip(*row, strict=True)]
        for row in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    found = form(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-13, atol=1e-14)


@smoothings
@pytest.mark.parametrize("vocab", [2, 6, 12])
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0, 1e6])
def test_float32_agrees_with_float64(vocab: int, size: float, smoothing: float) -> None:
    logits, labels = rows(vocab, size=size)
    narrow = logits.float().requires_grad_()
    wide = narrow.detach().double().requires_grad_()
    found = stablemax_losses(narrow, labels, label_smoothing=smoothing)
    wanted = stablemax_losses_reference(wide, labels, label_smoothing=smoothing)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-12)
    ours = torch.autograd.grad(found.sum(), narrow)[0]
    theirs = torch.autograd.grad(wanted.sum(), wide)[0]
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=6, max_size=6), st.integers(0, 5))
def test_any_size_of_logit(logits: list[float], label: int) -> None:
    """Relative to the loss itself, also where it is tiny because the label's logit is huge."""
    narrow = torch.tensor([logits], dtype=torch.float32, requires_grad=True)
    wide = narrow.detach().double().requires_grad_()
    labels = torch.tensor([label])
    found, wanted = stablemax_losses(narrow, labels), stablemax_losses(wide, labels)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), narrow)[0].double(),
        torch.autograd.grad(wanted.sum(), wide)[0],
        rtol=1e-5,
        atol=1e-36,
    )


@smoothings
def test_gradcheck(smoothing: float) -> None:
    logits, labels = rows()
    logits = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stablemax_losses(x, labels, label_smoothing=smoothing), (logits,))
    assert torch.autograd.gradcheck(lambda x: softmax_losses(x, labels, label_smoothing=smoothing), (logits,))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 1e30, -1e30])
def test_gradient_at_the_places_where_forms_break(value: float) -> None:
    """0 is where the branches meet; at 1 the unused branch divides by zero; far out squares overflow."""
    logits = torch.tensor([[value, 0.5, -0.5]], requires_grad=True)
    for label, sign in ((0, -1), (1, 1)):
        grad = torch.autograd.grad(stablemax_losses(logits, torch.tensor([label])).sum(), logits)[0]
        assert grad.isfinite().all()
        s = [v + 1 if v >= 0 else 1 / (1 - v) for v in (value, 0.5, -0.5)]
        share = s[0] / math.fsum(s)
        slope = 1 / (1 + abs(value))
        wanted = -math.fsum(s[1:]) / math.fsum(s) * slope if sign < 0 else share * slope
        assert grad[0, 0].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_logits(dtype: torch.dtype) -> None:
    exact, labels = rows()
    logits = exact.to(dtype).requires_grad_()
    wide = logits.detach().double().requires_grad_()
    found, wanted = stablemax_losses(logits, labels), stablemax_losses_reference(wide, labels)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=0)
    grad = torch.autograd.grad(found.sum(), logits)[0]
    assert grad.dtype is dtype
    torch.testing.assert_close(grad.double(), torch.autograd.grad(wanted.sum(), wide)[0], rtol=5e-3, atol=1e-6)


def test_softmax_by_hand() -> None:
    logits, labels = rows()
    found = softmax_losses(logits, labels, label_smoothing=0.2)
    shares = (logits.exp() / logits.exp().sum(-1, keepdim=True)).log()
    target = 0.8 * torch.nn.functional.one_hot(labels.clamp_min(0), 11).double() + 0.2 / 11
    wanted = torch.where(labels == IGNORE, 0.0, -(target * shares).sum(-1))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    assert softmax_losses(logits.bfloat16(), labels).dtype is torch.float32


@pytest.mark.parametrize("kind", ["stablemax", "softmax"])
@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32, torch.int16])
def test_scores_of_sequences(kind: str, label_dtype: torch.dtype) -> None:
    logits, labels = rows()
    labels[1] = logits[1].argmax(-1)
    labels[2, 1:] = logits[2, 1:].argmax(-1)
    labels[2, 0] = (labels[2, 1] + 1) % 11
    logits[2, 0, labels[2, 0]] = -9.0
    logits.requires_grad_()
    scores = score_sequences(logits, labels.to(label_dtype), kind=kind, label_smoothing=0.1)
    assert scores.num_labels.tolist() == [6, 9, 9, 0]
    assert scores.exact[1:].tolist() == [True, False, True]
    assert scores.correct.sum(-1)[1:].tolist() == [9, 8, 0]
    form = stablemax_losses_reference if kind == "stablemax" else softmax_losses
    by_token = form(logits, labels, label_smoothing=0.1)
    wanted = torch.stack([by_token[row, labels[row] != IGNORE].mean() for row in range(3)])
    torch.testing.assert_close(scores.loss[:3], wanted, rtol=1e-12, atol=0)
    assert scores.loss[3] == 0
    grad = torch.autograd.grad(scores.loss.sum(), logits)[0]
    assert not grad[labels == IGNORE].any()
    assert not scores.correct.requires_grad
    assert not scores.exact.requires_grad


def test_labels_of_bytes_cannot_be_mistaken_for_ignored_ones() -> None:
    """-100 as an unsigned byte is 156, a token like any other of a large vocabulary."""
    logits = torch.zeros(1, 1, 200)
    labels = torch.tensor([[156]], dtype=torch.uint8)
    for kind in ("stablemax", "softmax"):
        assert score_sequences(logits, labels, kind=kind).loss.item() == pytest.approx(math.log(200))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_log_probabilities_are_those_of_the_loss(size: float) -> None:
    logits, _ = rows(size=size)
    found = log_stablemax(logits)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, 9, dtype=torch.float64))
    for token in (0, 10):
        wanted = -stablemax_losses_reference(logits, torch.full((4, 9), token))
        torch.testing.assert_close(found[..., token], wanted, rtol=1e-9, atol=1e-9)
    assert log_stablemax(logits.bfloat16()).dtype is torch.float32
