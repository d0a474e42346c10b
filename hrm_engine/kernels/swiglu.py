"""The product inside a SwiGLU (Shazeer 2020, arXiv 2002.05202), with less kept for the backward pass.

Left to autograd it keeps four tensors of the inner width: the gate, what silu makes of it, the value and their
product. Silu is cheap to take again, so the gate and the value are enough (the product is kept by the layer behind).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """``silu(gate) * value``; equal shapes and types, to the last bit what autograd computes, gradients too."""
    # the compiler decides by itself what it computes again
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _SwiGLU.apply(gate, value)
    return F.silu(gate) * value


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return F.silu(gate).mul_(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * value, gate), F.silu(gate).mul_(grad)
