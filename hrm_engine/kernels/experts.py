"""Feed-forward experts over the tokens that were sent to them.

Every token is sent to k of N experts; an expert is a SwiGLU with weights of its own (Shazeer et al. 2017, arXiv
1701.06538; Fedus et al. 2021, arXiv 2101.03961). The assignments, T * k of them, are sorted by expert, so that each
expert's tokens are neighbours and its products are products of whole blocks. Nothing but the sizes of these blocks
depends on how full the experts are: shapes are static, and on a GPU nothing is read back to the host.

Shapes: T tokens, D hidden, N experts, k of them for each token, I inner width, M = T * k assignments.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def experts_reference(
    x: Tensor, chosen: Tensor, weights: Tensor, kept: Tensor | None, gate: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """Every expert for every token, then what was chosen: ``y_t = sum_j w_tj E_{c_tj}(x_t)``, (T, D).

    Args:
        x: (T, D).
        chosen: (T, k) int64, experts.
        weights: (T, k).
        kept: (T, k) bool, False where the expert was full: such an assignment adds nothing. None: all kept.
        gate, up: (N, I, D).
        down: (N, D, I).
    """
    y = torch.zeros_like(x)
    for expert in range(len(gate)):
        hit = chosen == expert if kept is None else (chosen == expert) & kept
        inner = F.silu(x @ gate[expert].T) * (x @ up[expert].T)
        y = y + (weights * hit).sum(1, keepdim=True) * (inner @ down[expert].T)
    return y


def experts(
    x: Tensor, chosen: Tensor, weights: Tensor, kept: Tensor | None, gate: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """The fastest form of :func:`experts_reference` for the device.

    On a CPU, assignments that were not kept come last and are not computed. On a GPU they are, with weight 0: leaving
    them out would change shapes.
    """
    num_tokens, k = chosen.shape
    num_experts = len(gate)
    skips = kept is not None and x.device.type == "cpu"
    by_assignment = (torch.where(kept, chosen, num_experts) if skips else chosen).flatten()
    in_order, order = by_assignment.sort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
    ends = torch.searchsorted(in_order, torch.arange(num_experts, device=x.device), right=True).to(torch.int32)
    rows = spread_rows(x, order, place, k)
    inner = F.silu(grouped_product(rows, gate, ends)) * grouped_product(rows, up, ends)
    y = gather_rows(grouped_product(inner, down, ends), order, place)
    weights = weights.to(y.dtype)
    if kept is not None:
        weights = weights * kept
    return (y.view(num_tokens, k, -1) * weights[..., None]).sum(1)


def grouped_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Block by block ``rows_e @ weight_e^T``: (M, K) and (N, O, K) to (M, O), zero behind the last block.

    Args:
        ends: (N,) int32, where each expert's block of rows ends.
    """
    if rows.device.type == "cpu":
        return _blocks(rows, weight, ends)
    return F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)


@torch.library.custom_op("hrm_lab::expert_blocks", mutates_args=())
def _blocks(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    out = rows.new_empty(len(rows), weight.shape[1])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(rows[start:end], weight[expert].T, out=out[start:end])
        start = end
    out[start:] = 0
    return out


@_blocks.register_fake
def _(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


@torch.library.custom_op("hrm_lab::expert_outer_blocks", mutates_args=())
def _outer_blocks(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """Block by block ``left_e^T @ right_e``: (M, O) and (M, K) to (N, O, K)."""
    out = left.new_empty(len(ends), left.shape[1], right.shape[1])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(left[start:end].T, right[start:end], out=out[expert])
        else:
            out[expert] = 0
        start = end
    return out


@_outer_blocks.register_fake
def _(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    return left.new_empty(ends.shape[0], left.shape[1], right.shape[1])


def _keep_blocks(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _blocks_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    rows, weight, ends = ctx.saved_tensors
    needs_rows, needs_weight, _ = ctx.needs_input_grad
    grad = grad.contiguous()
    return (
        _blocks(grad, weight.transpose(1, 2), ends) if needs_rows else None,
        _outer_blocks(grad, rows, ends) if needs_weight else None,
        None,
    )


_blocks.register_autograd(_blocks_backward, setup_context=_keep_blocks)


@torch.library.custom_op("hrm_lab::spread_rows", mutates_args=())
def spread_rows(x: Tensor, order: Tensor, place: Tensor, k: int) -> Tensor:
    """Rows of tokens (T, D) in the order of their assignments, (M, D).

    Args:
        order: (M,) number of the assignment, token * k + choice, at each place.
        place: (M,) the inverse: where each assignment stands.
    """
    return x.index_select(0, order // k)


@spread_rows.register_fake
def _(x: Tensor, order: Tensor, place: Tensor, k: int) -> Tensor:
    return x.new_empty(order.shape[0], x.shape[1])


def _keep_place(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])
    ctx.k = inputs[3]


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    # the library's own backward adds rows one after another; gathering them first is faster and in a fixed order
    (place,) = ctx.saved_tensors
    return grad.index_select(0, place).view(-1, ctx.k, grad.shape[-1]).sum(1), None, None, None


spread_rows.register_autograd(_spread_backward, setup_context=_keep_place)


@torch.library.custom_op("hrm_lab::gather_rows", mutates_args=())
def gather_rows(rows: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """The inverse of a permutation of rows, (M, D): row m of the result is ``rows[place[m]]``."""
    return rows.index_select(0, place)


@gather_rows.register_fake
def _(rows: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return torch.empty_like(rows)


def _keep_order(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (order,) = ctx.saved_tensors
    return grad.index_select(0, order), None, None


gather_rows.register_autograd(_gather_backward, setup_context=_keep_order)
