"""The MoE layer beside dense layers of its active and of its total size, forward and backward."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from bench.machine import compute_dtype, dtype_name, matmul_rate, table, wait
from hrm_engine.models.layers import SwiGLU
from hrm_engine.models.moe import MoE

TOKENS, WIDTH, INNER, PER_TOKEN, CAPACITY = 4096, 512, 1024, 2, 1.25
TURNS = 9


def report(
    device: torch.device,
    *,
    tokens: int = TOKENS,
    width: int = WIDTH,
    inner: int = INNER,
    experts: tuple[int, ...] = (8, 64),
    turns: int = TURNS,
    side: int | None = None,
) -> str:
    """Markdown: medians over turns in which every form runs once, so that a noisy neighbour meets all of them."""
    dtype = compute_dtype(device)
    x = torch.randn(8, tokens // 8, width, device=device, dtype=dtype, requires_grad=True)
    active = f"dense, {PER_TOKEN} x {inner} (equal active)"
    forms: dict[str, tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]] = {
        active: (_filled(SwiGLU(width, PER_TOKEN * inner), device, dtype), _dense)
    }
    for count in experts:
        moe = _filled(MoE(width, inner, count, PER_TOKEN), device, dtype)
        forms[f"MoE, {count} experts, top {PER_TOKEN}, dropless"] = (moe, partial(_moe, capacity_factor=0.0))
        forms[f"MoE, {count} experts, top {PER_TOKEN}, capacity {CAPACITY}"] = (
            moe,
            partial(_moe, capacity_factor=CAPACITY),
        )
    forms[f"dense, {experts[0]} x {inner} (equal total)"] = (
        _filled(SwiGLU(width, experts[0] * inner), device, dtype),
        _dense,
    )

    def timed(module: nn.Module, form: Callable[[nn.Module], torch.Tensor]) -> float:
        module.zero_grad(set_to_none=True)
        x.grad = None
        wait(device)
        start = time.perf_counter()
        form(module).sum().backward()
        wait(device)
        return time.perf_counter() - start

    def bind(form: Callable[..., torch.Tensor]) -> Callable[[nn.Module], torch.Tensor]:
        return lambda module: form(module, x)

    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(turns + 2):
        for name, (module, form) in forms.items():
            seconds = timed(module, bind(form))
            if turn >= 2:
                times[name].append(seconds)
    limit = 3 * 3 * 2 * tokens * width * PER_TOKEN * inner / matmul_rate(device, side=side)
    rows = []
    for name, measured in times.items():
        ratio = statistics.median(mine / dense for mine, dense in zip(measured, times[active], strict=True))
        median = statistics.median(measured)
        rows.append(
            [name, f"{median * 1e3:.1f} ms", f"{ratio:.2f} x", f"{limit / median:.0%}" if "total" not in name else ""]
        )
    return (
        f"## MoE layer, {tokens} tokens, hidden {width}, inner {inner}, {dtype_name(dtype)}, forward + backward\n\n"
        + table(["form", "median", "to equal active", "of the matmul rate"], rows)
        + f"\nlimit of the active products: {limit * 1e3:.1f} ms\n"
    )


def _dense(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)


def _moe(module: nn.Module, x: torch.Tensor, *, capacity_factor: float) -> torch.Tensor:
    y, routing = module(x, capacity_factor=capacity_factor)
    # the losses of the router are part of the layer's work
    return y + 1e-6 * (routing.probabilities.square().sum() + routing.z).to(y.dtype)


def _filled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return module.to(device, dtype)
