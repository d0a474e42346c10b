"""Parameter-free RMS norm.

Two forms. Where layers are compiled, and on GPUs, the library's is fused. Run as it is on a CPU, the library's takes
apart into six passes and twice as many backward; :class:`_Norm` takes two and four (bench/LOG.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm_reference(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` over the last dimension, statistics in at least fp32; same dtype as ``x``."""
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """The fastest form of :func:`rms_norm_reference` for the device and type."""
    is_wide = x.dtype in (torch.float32, torch.float64)
    if x.device.type == "cpu" and is_wide and not torch.compiler.is_compiling():
        # of a single token, the way through autograd costs three times the arithmetic
        return _Norm.apply(x, eps) if torch.is_grad_enabled() else _normed(x, eps)[0]
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


class _Norm(torch.autograd.Function):
    """With ``r = 1 / sqrt(mean(x^2) + eps)`` and ``y = r x``: ``dx = r (dy - y mean(dy y))``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, r = _normed(x, eps)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y, r = ctx.saved_tensors
        along = (grad * y).mean(-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1).mul_(r), None


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    r = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * r, r
