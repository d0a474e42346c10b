"""The chunked head: loss and gradients of the plain form, whatever the chunks and the labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hrm_engine.kernels import losses as kernels
from hrm_engine.kernels.losses import IGNORE, head_statistics, token_losses, token_losses_reference

ROWS, WIDTH, VOCAB = 11, 6, 17


def head(dtype: torch.dtype = torch.float64, *, vocab: int = VOCAB) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, WIDTH, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocab, (ROWS,), generator=generator)
    labels[[0, 4, 5, 6, 7]] = IGNORE
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


def by_hand(hidden: Tensor, weight: Tensor, labels: Tensor) -> list[float]:
    found = []
    for row, label in zip(hidden.tolist(), labels.tolist(), strict=True):
        logits = [math.fsum(h * w for h, w in zip(row, out, strict=True)) for out in weight.tolist()]
        top = max(logits)
        total = top + math.log(math.fsum(math.exp(logit - top) for logit in logits))
        found.append(0.0 if label == IGNORE else total - logits[label])
    return found


@pytest.fixture(params=[1, 2, 4, 1000], ids=lambda rows: f"{rows}-rows-a-chunk")
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows 4 to 7 have no label: with 4 rows (and 2, and 1) a whole chunk has none."""
    monkeypatch.setattr(kernels, "CHUNK_ELEMENTS", request.param * VOCAB)
    return request.param


def test_the_reference_is_the_definition() -> None:
    hidden, weight, labels = head()
    wanted = torch.tensor(by_hand(hidden, weight, labels), dtype=torch.float64)
    torch.testing.assert_close(token_losses_reference(hidden, weight, labels), wanted, rtol=0, atol=1e-12)


def test_loss_and_gradients_are_the_references(chunk_rows: int) -> None:
    hidden, weight, labels = head()
    total, by_token = token_losses(hidden, weight, labels)
    wanted = token_losses_reference(hidden, weight, labels)
    assert not by_token.requires_grad
    torch.testing.assert_close(by_token, wanted.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(total, wanted.sum(), rtol=0, atol=1e-12)
    ours = torch.autograd.grad(total * 0.3, (hidden, weight))
    theirs = torch.autograd.grad(wanted.sum() * 0.3, (hidden, weight))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert (ours[0][labels == IGNORE] == 0).all()


def test_gradcheck(chunk_rows: int) -> None:
    hidden, weight, labels = head()
    assert torch.autograd.gradcheck(lambda h, w: token_losses(h, w, labels)[0], (hidden, weight))


def test_a_vocabulary_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHUNK_ELEMENTS", 10)
    hidden, weight, labels = head(vocab=40)
    total, by_token = token_losses(hidden, weight, labels)
    torch.testing.assert_close(by_token, token_losses_reference(hidden, weight, labels).detach(), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda h, w: token_losses(h, w, labels)[0], (hidden, weight))
    assert total.item() == pytest.approx(sum(by_hand(hidden, weight, labels)), abs=1e-12)


def test_no_label_at_all(chunk_rows: int) -> None:
    hidden, weight, labels = head()
    total, by_token = token_losses(hidden, weight, torch.full_like(labels, IGNORE))
    total.backward()
    assert total.item() == 0
    assert not by_token.any()
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_rows_without_a_label_do_not_count(chunk_rows: int) -> None:
    """Whatever stands in them, the losses and gradients of the others stay."""
    hidden, weight, labels = head()
    token_losses(hidden, weight, labels)[0].backward()
    other_hidden, other_weight, _ = head()
    with torch.no_grad():
        other_hidden[labels == IGNORE] = 1e3
    token_losses(other_hidden, other_weight, labels)[0].backward()
    assert torch.equal(other_hidden.grad, hidden.grad)
    assert torch.equal(other_weight.grad, weight.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_stay_near(dtype: torch.dtype, chunk_rows: int) -> None:
    hidden, weight, labels = head(dtype)
    exact_hidden, exact_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    total, by_token = token_losses(hidden, weight, labels)
    wanted = token_losses_reference(exact_hidden, exact_weight, labels)
    assert total.dtype is torch.float32
    assert by_token.dtype is torch.float32
    tolerance = 6e-2 if dtype is torch.bfloat16 else 6e-3
    torch.testing.assert_close(by_token.double(), wanted.detach(), rtol=0, atol=tolerance)
    total.backward()
    wanted.sum().backward()
    assert hidden.grad.dtype is dtype
    assert weight.grad.dtype is dtype
    torch.testing.assert_close(hidden.grad.double(), exact_hidden.grad, rtol=0, atol=tolerance)
    torch.testing.assert_close(weight.grad.double(), exact_weight.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_sure_and_wrong_model_has_a_finite_loss(dtype: torch.dtype) -> None:
    """60 nats: the probability is far below what the narrow types can hold, its logarithm is not."""
    hidden = torch.tensor([[60.0]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], dtype=dtype, requires_grad=True)
    total, _ = token_losses(hidden, weight, torch.tensor([1]))
    total.backward()
    assert total.item() == pytest.approx(60, abs=0.5)
    assert hidden.grad.item() == pytest.approx(1)


def test_loss_scaling_comes_before_rounding_to_fp16() -> None:
    """1/tokens alone would push gradients of fp16 to zero; with the loss scale on top nothing is lost."""
    hidden, weight, labels = head(torch.float16)
    token_losses(hidden, weight, labels)[0].backward()
    scaled_hidden, scaled_weight, _ = head(torch.float16)
    total, _ = token_losses(scaled_hidden, scaled_weight, labels)
    (total * 2.0**-30 * 2.0**30).backward()
    assert torch.equal(scaled_hidden.grad, hidden.grad)
    assert torch.equal(scaled_weight.grad, weight.grad)


def test_head_statistics(chunk_rows: int) -> None:
    hidden, weight, labels = head()
    by_token, right = head_statistics(hidden, weight, labels)
    logits = hidden @ weight.T
    best = logits.argmax(-1)
    labels = torch.where(torch.arange(ROWS) % 2 == 0, best, labels)
    by_token, right = head_statistics(hidden, weight, labels)
    torch.testing.assert_close(by_token, token_losses_reference(hidden, weight, labels).detach(), rtol=0, atol=1e-12)
    assert right.tolist() == (best == labels).tolist()
    assert right[0]
    assert not right[labels == IGNORE].any()
    assert not by_token.requires_grad
