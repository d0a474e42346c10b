"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves rotated against each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rope_tables(positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions (B, S): two tensors (B, S, 1, head_size) of ``dtype``, angles taken in fp32.

    float64 in gives float64 angles, so that exact comparisons stay exact.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_size, 2, device=positions.device, dtype=wide) / head_size
    angles = positions[..., None].to(wide) * theta**-exponent
    angles = torch.cat((angles, angles), -1)[:, :, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads x (B, S, heads, head_size) by the tables of :func:`rope_tables`."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _Rotation.apply(x, cos, sin)
        return _turned(x, cos, sin) if x.shape[1] > 1 else _turned_token(x, cos, sin)
    # The sign goes into the small table and the halves change places by a flip, which the compiler turns into plain
    # loads: concatenating (-second, first) instead took 4 times as long in fp32 and 1.5 times in bf16.
    first, second = sin.chunk(2, -1)
    swapped = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return x * cos + swapped * torch.cat((-first, second), -1)


class _Rotation(torch.autograd.Function):
    """Half as many passes where nothing fuses them; the result lies in memory as (B, heads, S, head_size), which is
    what batched products need. Turning back is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x, cos, sin = x.transpose(1, 2), cos.transpose(1, 2), sin.transpose(1, 2)
    half = x.shape[-1] // 2
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out.transpose(1, 2)


def _turned_token(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same in fewer steps, each of which costs more than its arithmetic where there is one position."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
