"""Kernels beside the library's forms: the loss of the head, attention over packed documents."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.machine import compute_dtype, dtype_name, matmul_rate, median_s, table
from hrm_engine.kernels.attention import AttentionPlan, attention, plan_attention
from hrm_engine.kernels.losses import token_losses


@dataclass(frozen=True)
class Size:
    """Of the head: ``rows`` tokens of ``width`` over a ``vocabulary``; of attention: ``batch`` rows of ``length``."""

    rows: int = 2048
    width: int = 256
    vocabulary: int = 8192
    batch: int = 8
    length: int = 256


def report(device: torch.device, size: Size | None = None, *, side: int | None = None) -> str:
    """Markdown: milliseconds forward and backward, and the limit set by matrix products."""
    size = size or Size()
    rate = matmul_rate(device, side=side)
    return f"## Kernels, forward + backward, {dtype_name(compute_dtype(device))}\n\n" + table(
        ["kernel", "form", "median"], [*_head(device, size, rate), *_attention(device, size, rate)]
    )


def _head(device: torch.device, size: Size, rate: float) -> list[list[str]]:
    dtype = compute_dtype(device)
    hidden = torch.randn(size.rows, size.width, device=device, dtype=dtype, requires_grad=True)
    weight = (torch.randn(size.vocabulary, size.width, device=device) / 16).to(dtype).requires_grad_()
    labels = torch.randint(0, size.vocabulary, (size.rows,), device=device)
    forms: dict[str, Callable[[], Tensor]] = {
        "ours, chunked, loss of every token": lambda: token_losses(hidden, weight, labels)[0],
        "all logits in fp32": lambda: F.cross_entropy((hidden @ weight.T).float(), labels, reduction="sum"),
    }
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions
        sized = options(batch_chunk_size=512, chunking_method=None, acc_policy="balanced")
        for label, reduction, option in (
            ("F.linear_cross_entropy, default options, sum only", "sum", options()),
            ("F.linear_cross_entropy, best options found, sum only", "sum", sized),
            ("F.linear_cross_entropy, best options found, every token", "none", sized),
        ):
            forms[label] = lambda reduction=reduction, option=option: F.linear_cross_entropy(
                hidden, weight, labels, reduction=reduction, options=option
            )
    rows = []
    for label, form in forms.items():

        def work(form: Callable[[], Tensor] = form) -> None:
            hidden.grad = weight.grad = None
            form().sum().backward()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(
                [
                    f"head {size.rows} x {size.width} x {size.vocabulary}",
                    label,
                    f"{median_s(work, device) * 1e3:.1f} ms",
                ]
            )
    limit = 3 * 2 * size.rows * size.width * size.vocabulary / rate
    return [*rows, ["", "limit: its three matrix products", f"{limit * 1e3:.1f} ms"]]


def _attention(device: torch.device, size: Size, rate: float) -> list[list[str]]:
    dtype = compute_dtype(device)
    batch, length, heads, head_dim = size.batch, size.length, 4, 64
    q, k, v = (
        torch.randn(batch, length, heads, head_dim, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    documents = torch.randint(0, 3, (batch, length), device=device).sort(1).values
    plan = plan_attention(num_queries=length, num_keys=length, device=device, dtype=dtype, documents=documents)
    forms = {"ours": plan, "F.scaled_dot_product_attention with mask": AttentionPlan(plan.visible, False, None)}
    rows = []
    for label, form in forms.items():

        def work(form: AttentionPlan = form) -> None:
            q.grad = k.grad = v.grad = None
            attention(q, k, v, form).sum().backward()

        rows.append([f"attention {batch} x {length}, {heads} heads", label, f"{median_s(work, device) * 1e3:.2f} ms"])
    limit = 6 * 2 * batch * heads * length * length * head_dim / 2 / rate
    return [*rows, ["", "limit: its products over the causal half", f"{limit * 1e3:.2f} ms"]]
