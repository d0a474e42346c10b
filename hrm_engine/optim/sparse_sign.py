"""The update of HRM's puzzle embedding (Wang et al. 2025, 2506.21734): sign-SGD on the rows that a batch touched.

Of a table with a row for each puzzle a batch reads few rows, so an optimizer over the whole table would spend its time,
and its weight decay, on rows that have learned nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sparse_sign_update(
    table: Tensor, identifiers: Tensor, gradient: Tensor, *, lr: float | Tensor, weight_decay: float, finite: Tensor
) -> None:
    """In place, for each row that occurs in ``identifiers``: ``p <- p (1 - lr wd) - lr sign(g)``.

    g is the sum of the gradients of all places where the row occurs. Shapes are static and the host waits for nothing;
    equal input gives equal bits, however often a row occurs.

    Args:
        table: (N, W).
        identifiers: (B,) int, rows of the table that the whole step has read, in every process the same.
        gradient: (B, W) of the whole step, by place in ``identifiers``.
        lr: learning rate of this step, a number or a scalar on the device.
        finite: scalar bool on the device; where it is False nothing changes.
    """
    identifiers = identifiers.long()
    same = identifiers[:, None] == identifiers
    total = same.to(gradient.dtype) @ gradient
    # All places of a row must write the same bits, whatever order a matrix product adds in: those of the first place.
    first = same.int().argmax(1)
    old = table.index_select(0, identifiers)
    new = old * (1 - lr * weight_decay) - lr * total.index_select(0, first).sign().to(table.dtype)
    table.index_copy_(0, identifiers, torch.where(finite, new, old))
