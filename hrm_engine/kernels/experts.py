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

from hrm_engine.kernels import native
from hrm_engine.kernels.swiglu import swiglu


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
    k, num_experts = chosen.shape[1], len(gate)
    skips = kept is not None and x.device.type == "cpu"
    by_assignment = (torch.where(kept, chosen, num_experts) if skips else chosen).flatten()
    in_order, order = by_assignment.sort(stable=True)
    order, place, ends = _blocked(in_order, order, num_experts, _multiple(x, len(order), num_experts))
    rows = spread_rows(x, order, place, k)
    inner = swiglu(grouped_product(rows, gate, ends), grouped_product(rows, up, ends))
    weights = weights.to(x.dtype)
    if kept is not None:
        weights = weights * kept
    return combine_rows(grouped_product(inner, down, ends), weights, order, place)


def _multiple(x: Tensor, num_rows: int, num_experts: int) -> int:
    """Number whose multiples the rows of a block are filled up to.

    oneDNN makes a program for every shape of a product, which takes time and stays in memory: with blocks of any size
    nearly every product was a new one. A few rows more for each expert are cheaper (bench/LOG.md).
    """
    if x.device.type != "cpu":
        return 1
    return 1 << max(0, min(5, (num_rows // (8 * num_experts)).bit_length() - 1))


def _blocked(in_order: Tensor, order: Tensor, num_experts: int, multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places of assignments, sorted by expert, where each expert's block has a multiple of so many rows.

    Returns:
        ``order`` (M',) number of the assignment at each place, 0 where a block is filled up; ``place`` (M,), its
        inverse; ``ends`` (N,) int32 where each block ends. M' is M where ``multiple`` is 1.
    """
    experts = torch.arange(num_experts, device=order.device)
    ends = torch.searchsorted(in_order, experts, right=True)
    standing = torch.arange(len(order), device=order.device)
    if multiple > 1:
        sizes = ends.diff(prepend=ends.new_zeros(1))
        filled = ((sizes + multiple - 1) // multiple * multiple).cumsum(0)
        # By how much everything of an expert moves back; what was not kept stands behind the last block.
        moved = torch.cat([ends.new_zeros(1), filled - ends])
        standing, ends = standing + moved[in_order], filled
    place = torch.empty_like(order).scatter_(0, order, standing)
    num_places = len(order) + (multiple - 1) * num_experts
    return order.new_zeros(num_places).scatter_(0, standing, order), place, ends.to(torch.int32)


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
    if rows.dtype == torch.bfloat16 and native.load() is None:
        return torch.ops.hrm_lab.expert_products(rows, weight, ends)
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
    if left.dtype == torch.bfloat16 and native.load() is None:
        return torch.ops.hrm_lab.expert_outer_products(left, right, ends)
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


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
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


_blocks.register_autograd(_blocks_backward, setup_context=_keep_inputs)


@torch.library.custom_op("hrm_lab::spread_rows", mutates_args=())
def spread_rows(x: Tensor, order: Tensor, place: Tensor, k: int) -> Tensor:
    """Rows of tokens (T, D) in the order of their assignments, (M', D).

    Args:
        order: (M',) number of the assignment, token * k + choice, at each place; M' is M, or more where blocks are
            filled up.
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
    # the library's own backward adds rows one after another; a bag of each token's rows is faster, in a fixed order
    (place,) = ctx.saved_tensors
    return F.embedding_bag(place.view(-1, ctx.k), grad, mode="sum"), None, None, None


spread_rows.register_autograd(_spread_backward, setup_context=_keep_place)


@torch.library.custom_op("hrm_lab::combine_rows", mutates_args=())
def combine_rows(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """Weighted sum of the k rows of each token: (M', D) in the order of the experts and (T, k) to (T, D).

    Args:
        order, place: as in :func:`spread_rows`.
    """
    return F.embedding_bag(place.view(weights.shape), rows, mode="sum", per_sample_weights=weights)


@combine_rows.register_fake
def _(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return rows.new_empty(weights.shape[0], rows.shape[1])


def _combine_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    rows, weights, order, place = ctx.saved_tensors
    spread = grad.index_select(0, order // weights.shape[1])
    by_assignment = torch.linalg.vecdot(rows, spread)[place].view(weights.shape)
    # nothing where a block is filled up: these rows are no token's
    scale = weights.new_zeros(len(order)).index_copy(0, place, weights.flatten())
    return spread * scale[:, None], by_assignment, None, None


combine_rows.register_autograd(_combine_backward, setup_context=_keep_inputs)
