"""Cross-entropy of a linear head, without the logits of the whole batch.

Shapes: R rows (tokens), D width, V vocabulary. ``IGNORE`` in the labels marks rows without a label.

The chunked form takes the gradients in the forward pass, chunk by chunk, so that three matrix products are all that a
training step needs, and it returns the loss of *every token*, which halting needs as a label. Torch's own
``F.linear_cross_entropy`` either gives one number (rounded to bf16 when the weights are bf16) or recomputes the logits
in the backward pass; bench/RESULTS.md has both beside this one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
CHUNK_ELEMENTS = 1 << 21
"""Logits in one chunk on a CPU: 4 MiB in bf16, which stays in a processor's cache."""
GPU_CHUNK_ELEMENTS = 1 << 26


def token_losses_reference(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Loss of each token in nats, (R,); 0 where the label is ``IGNORE``. Holds all logits; any dtype."""
    logits = hidden @ weight.T
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide, labels, ignore_index=IGNORE, reduction="none")


def token_losses(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the token losses, to be differentiated, and the loss of each token, without gradient.

    Args:
        hidden: (R, D) in the compute dtype.
        weight: (V, D), same dtype.
        labels: (R,) int64.

    Returns:
        Scalar sum and (R,) losses in nats (0 where the label is ``IGNORE``), both fp32, float64 for float64 inputs.
    """
    return _ChunkedTokenLosses.apply(hidden, weight, labels)


def head_statistics(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each token in nats (R,) and whether the most likely token is the label (R,) bool, without gradient."""
    losses, correct = [], []
    with torch.no_grad():
        for rows in _chunks(hidden, weight):
            logits = hidden[rows] @ weight.T
            wide = logits if logits.dtype == torch.float64 else logits.float()
            losses.append(F.cross_entropy(wide, labels[rows], ignore_index=IGNORE, reduction="none"))
            correct.append(wide.argmax(-1) == labels[rows])
    return torch.cat(losses), torch.cat(correct)


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    elements = CHUNK_ELEMENTS if hidden.device.type == "cpu" else GPU_CHUNK_ELEMENTS
    step = max(1, elements // weight.shape[0])
    return [slice(start, start + step) for start in range(0, hidden.shape[0], step)]


class _ChunkedTokenLosses(torch.autograd.Function):
    """Softmax in the compute dtype (fp32 inside), gradients of the head's weight summed over chunks in fp32.

    The gradients are kept unscaled until the backward pass: in fp16 the factor 1/tokens would push them to zero before
    loss scaling could save them.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden.shape[0], dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
        for rows in _chunks(hidden, weight):
            chunk = hidden[rows]
            has_label = (labels[rows] != IGNORE)[:, None]
            index = labels[rows].clamp_min(0)[:, None]
            logits = chunk @ weight.T
            if logits.dtype == torch.bfloat16:
                # bf16 has the exponents of fp32: the logarithm of the probability is safe and saves a pass
                probability = logits.softmax(-1)
                loss = -probability.gather(1, index).to(wide).clamp_min(1e-37).log()
            else:
                log_probability = logits.log_softmax(-1, dtype=wide)
                loss = -log_probability.gather(1, index)
                probability = log_probability.exp().to(logits.dtype)
            losses[rows] = torch.where(has_label, loss, 0.0)[:, 0]
            probability.scatter_add_(1, index, torch.full_like(index, -1, dtype=probability.dtype))
            grad_hidden[rows] = (probability @ weight) * has_label
            grad_weight += probability.T @ (chunk * has_label)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        grad_hidden = (grad_hidden * grads[0]).to(grad_hidden.dtype)
        return grad_hidden, (grad_weight * grads[0]).to(ctx.weight_dtype), None
